// SPDX-License-Identifier: Apache-2.0
#include "algebra/mask_pairs.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace fattn {
namespace {

// A sequence with ids and tables, and what its masks keep, pair by pair, found without them.
class Drawn {
 public:
  explicit Drawn(std::mt19937& engine) : engine_(engine) {
    seqlen_q = draw(1, 24), seqlen_k = draw(1, 24);
    kept.assign(static_cast<std::size_t>(seqlen_q * seqlen_k), true);
    if (draw(0, 2) != 0) draw_documents();
    if (draw(0, 2) != 0) draw_blocks();
  }
  PairMask mask() const {
    PairMask mask;
    if (!document_q_.empty()) mask.document_q = document_q_.data(), mask.document_k = document_k_.data();
    if (block_q_ > 0) mask.blocks = {block_q_, block_k_, offsets_.data(), columns_.data(), bits_.data(), words_.data()};
    return mask;
  }
  bool keeps(int query, int key) const { return kept[static_cast<std::size_t>(query * seqlen_k + key)]; }
  int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }

  int seqlen_q = 0, seqlen_k = 0;
  std::vector<bool> kept;

 private:
  void drop(int query, int key) { kept[static_cast<std::size_t>(query * seqlen_k + key)] = false; }
  void draw_documents() {
    const bool sorted = draw(0, 1) == 0;
    for (int i = 0; i < seqlen_q; ++i) document_q_.push_back(sorted ? i / 5 : draw(-1, 1));
    for (int j = 0; j < seqlen_k; ++j) document_k_.push_back(sorted ? j / 5 : draw(-1, 1));
    for (int i = 0; i < seqlen_q; ++i) {
      for (int j = 0; j < seqlen_k; ++j) {
        if (document_q_[static_cast<std::size_t>(i)] != document_k_[static_cast<std::size_t>(j)]) drop(i, j);
      }
    }
  }
  void draw_blocks() {
    block_q_ = draw(1, 9), block_k_ = draw(1, 9);
    words_.assign(200, 0);
    offsets_.push_back(0);
    std::int64_t next = draw(0, 40);  // bits begin anywhere
    for (int row = 0; row * block_q_ < seqlen_q; ++row) {
      for (int column = 0; column * block_k_ < seqlen_k; ++column) {
        const int kind = draw(0, 2);  // absent, full, partial
        if (kind > 0) columns_.push_back(column), bits_.push_back(kind == 1 ? -1 : next);
        for (int i = 0; i < block_q_; ++i) {
          for (int j = 0; j < block_k_; ++j) {
            const int query = row * block_q_ + i, key = column * block_k_ + j;
            const bool bit = kind == 1 || (kind == 2 && draw(0, 1) == 1);
            if (kind == 2 && bit) {
              const auto at = static_cast<std::size_t>(next + i * block_k_ + j);
              words_[at / 32] |= 1u << (at % 32);
            }
            if (!bit && query < seqlen_q && key < seqlen_k) drop(query, key);
          }
        }
        if (kind == 2) next += block_q_ * block_k_;
      }
      offsets_.push_back(static_cast<std::int32_t>(columns_.size()));
    }
  }

  std::mt19937& engine_;
  std::vector<std::int32_t> document_q_, document_k_, offsets_, columns_;
  std::vector<std::int64_t> bits_;
  std::vector<std::uint32_t> words_;
  int block_q_ = 0, block_k_ = 0;
};

TEST(PairMask, KeepsWhatTheTablesSay) {
  std::mt19937 engine(20240712);
  for (int n = 0; n < 3000; ++n) {
    const Drawn drawn(engine);
    const PairMask mask = drawn.mask();
    for (int i = 0; i < drawn.seqlen_q; ++i) {
      for (int j = 0; j < drawn.seqlen_k; ++j)
        ASSERT_EQ(mask.keep(i, j), drawn.keeps(i, j)) << n << " " << i << " " << j;
    }
  }
}

// What loaders and consumers go by: `none` and `all` are promises.
TEST(PairMask, SharesAreTrue) {
  std::mt19937 engine(20240713);
  int none = 0, some = 0, all = 0;
  for (int n = 0; n < 20000; ++n) {
    Drawn drawn(engine);
    const int q_begin = drawn.draw(0, drawn.seqlen_q - 1), q_end = drawn.draw(q_begin + 1, drawn.seqlen_q);
    const int k_begin = drawn.draw(0, drawn.seqlen_k - 1), k_end = drawn.draw(k_begin + 1, drawn.seqlen_k);
    int count = 0;
    for (int i = q_begin; i < q_end; ++i) {
      for (int j = k_begin; j < k_end; ++j) count += drawn.keeps(i, j) ? 1 : 0;
    }
    switch (drawn.mask().share(q_begin, q_end, k_begin, k_end)) {
      case Share::none:
        ASSERT_EQ(count, 0) << n;
        ++none;
        break;
      case Share::all:
        ASSERT_EQ(count, (q_end - q_begin) * (k_end - k_begin)) << n;
        ++all;
        break;
      case Share::some: ++some; break;
    }
  }
  // Each answer comes up: a mask that always said `some` would be true and useless.
  EXPECT_GT(none, 500);
  EXPECT_GT(some, 500);
  EXPECT_GT(all, 500);
}

// Absent and full blocks are known for what they are, whatever lies around them.
TEST(PairMask, BlocksAreSkipped) {
  const std::vector<std::int32_t> offsets = {0, 2, 2, 3}, columns = {1, 3, 0};
  const std::vector<std::int64_t> bits = {-1, -1, 0};
  const std::vector<std::uint32_t> words = {0xffffffffu};
  PairMask mask;
  mask.blocks = {4, 4, offsets.data(), columns.data(), bits.data(), words.data()};
  EXPECT_EQ(mask.share(0, 4, 0, 4), Share::none);
  EXPECT_EQ(mask.share(0, 4, 4, 8), Share::all);
  EXPECT_EQ(mask.share(0, 4, 4, 9), Share::some);
  EXPECT_EQ(mask.share(0, 4, 8, 12), Share::none);
  EXPECT_EQ(mask.share(4, 8, 0, 16), Share::none);
  EXPECT_EQ(mask.share(8, 9, 0, 1), Share::some);  // partial, whatever its bits are
}

// Documents that a tile does not have are known whatever order the ids come in.
TEST(PairMask, DocumentsAreSkipped) {
  const std::vector<std::int32_t> q = {7, 7, -3, -3, 1000, 1000, 12, 12}, k = {12, 12, 500, 500, 3, 3, 7, 7};
  PairMask mask;
  mask.document_q = q.data();
  mask.document_k = k.data();
  EXPECT_EQ(mask.share(0, 4, 0, 6), Share::none);  // 3 and 12 lie between -3 and 7, or beyond
  EXPECT_EQ(mask.share(2, 6, 0, 8), Share::none);  // every key's id lies between these two
  EXPECT_EQ(mask.share(6, 8, 2, 8), Share::none);
  EXPECT_EQ(mask.share(0, 2, 6, 8), Share::all);
  EXPECT_EQ(mask.share(0, 8, 0, 8), Share::some);
}

// Tables of sequences and heads are found where docs/numerics.md says they are.
TEST(PairMask, TablesByBatchAndHead) {
  // 2 x 3 tables of one block each; table 4 (batch 1, head 1) has the block.
  const std::vector<std::int32_t> offsets = {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}, columns = {0};
  const std::vector<std::int64_t> bits = {-1};
  PairMasks masks;
  masks.blocks = {8, 8, offsets.data(), columns.data(), bits.data(), nullptr};
  masks.table_rows = 2;
  masks.table_of_batch = 3;
  masks.table_of_head = 1;
  for (int batch = 0; batch < 2; ++batch) {
    for (int head = 0; head < 3; ++head) {
      EXPECT_EQ(masks.of(batch, head, 0, 0).keep(0, 0), batch == 1 && head == 1) << batch << " " << head;
    }
  }
  // The same tables for batches 0 to 5, of all heads alike.
  masks.table_of_batch = 1;
  masks.table_of_head = 0;
  for (int batch = 0; batch < 6; ++batch) {
    for (int head = 0; head < 3; ++head) EXPECT_EQ(masks.of(batch, head, 0, 0).keep(0, 0), batch == 4) << batch;
  }
}

}  // namespace
}  // namespace fattn
