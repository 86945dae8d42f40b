// SPDX-License-Identifier: Apache-2.0
// Reports from other libraries that a line of user_reports.txt cannot say, on every CPU row that accepts them.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

#include "cpu/support.hpp"

namespace fattn {
namespace {

std::vector<std::string> rows_for(const Problem& problem) {
  std::vector<std::string> names;
  for (const verify::RowAnswer& row : verify::row_answers(problem, cpu())) {
    if (row.reason.empty() && !row.by_name_only) names.push_back(row.kernel);
  }
  EXPECT_FALSE(names.empty()) << to_string(problem);
  return names;
}

// Memory that is zero and takes room only where it is written.
class SparseMemory {
 public:
  explicit SparseMemory(std::size_t bytes) : bytes_(bytes) {
    void* const memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    data_ = memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
  }
  ~SparseMemory() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }
  SparseMemory(const SparseMemory&) = delete;
  SparseMemory& operator=(const SparseMemory&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

// The lower triangle as a block-sparse list: full blocks below the diagonal, partial ones on it.
struct CausalBlocks {
  CausalBlocks(std::int64_t seqlen, std::int64_t block) {
    const std::int64_t rows = (seqlen + block - 1) / block;
    offsets.push_back(0);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column <= row; ++column) {
        columns.push_back(static_cast<std::int32_t>(column));
        bits.push_back(column < row ? -1 : 0);  // all diagonal blocks share their bits
      }
      offsets.push_back(static_cast<std::int32_t>(columns.size()));
    }
    mask.assign(static_cast<std::size_t>(block * block / 32 + 1), 0);
    for (std::int64_t n = 0; n < block * block; ++n) {
      if (n % block <= n / block) mask[static_cast<std::size_t>(n / 32)] |= 1u << (n % 32);
    }
  }
  void put(verify::CaseData& data) const {
    data.set_array("block_offsets", offsets);
    data.set_array("block_columns", columns);
    data.set_array("block_bits", bits);
    data.set_array("block_mask", mask);
  }
  std::vector<std::int32_t> offsets, columns;
  std::vector<std::int64_t> bits;
  std::vector<std::uint32_t> mask;
};

std::vector<verify::Tensor> outputs_of(const verify::CaseData& placed, const std::string& row) {
  verify::CaseOutputs outputs(placed.problem(), cpu(2));
  Buffers buffers = placed.placed();
  outputs.attach(buffers);
  verify::run_plan(plan(placed.problem(), cpu(2), row), buffers);
  outputs.fetch();
  return {outputs.tensors().begin(), outputs.tensors().end()};
}

// Dao-AILab/flash-attention#2623, #2903: a block-sparse list that equals causal gave other outputs and gradients.
TEST(UserReports, FlashAttention2623BlockListThatIsCausal) {
  for (const char* d : {"64", "128", "192", "256"}) {
    for (const std::string pass : {"fwd", "bwd"}) {
      const std::string words = pass + " b1 hq2 hk1 sq200 sk200 d" + d + " bf16" + (pass == "fwd" ? " lse" : "");
      const verify::CaseData causal = case_data(words + " causal", cpu(2));
      verify::CaseData blocks = case_data(words + " block_sparse=64,64", cpu(2));
      for (const char* name : {"q", "k", "v", "dout", "o", "lse"}) {
        if (pass == "fwd" && name != std::string("q") && name != std::string("k") && name != std::string("v")) continue;
        blocks.tensor(name).bytes() = causal.tensor(name).bytes();
      }
      CausalBlocks(200, 64).put(blocks);
      blocks.place();
      for (const std::string& row : rows_for(blocks.problem())) {
        const std::vector<verify::Tensor> one = outputs_of(blocks, row), other = outputs_of(causal, row);
        // Two ways to the same sums: as far apart as roundings of P and dS to bf16 make them, beside what is typical.
        double worst = 0;
        for (std::size_t i = 0; i < one.size(); ++i) {
          const verify::Distance off = verify::distance(one[i], other[i]);
          EXPECT_EQ(off.misplaced, 0) << row << ' ' << words;
          worst = std::max(worst, off.max / off.reference_rms);
        }
        EXPECT_LE(worst, 1.0 / 32) << row << ' ' << words;
      }
    }
  }
}

// Dao-AILab/flash-attention#2611: dout a slice of something so wide that a token's offset needs more than 31 bits.
TEST(UserReports, FlashAttention2611StridesBeyond31Bits) {
  constexpr std::int64_t kStride = (std::int64_t{1} << 31) + 64;
  const std::string words = "bwd b1 hq2 hk2 sq3 sk5 d32 bf16";
  const verify::CaseData plain = case_data(words, cpu(1));
  const std::string wide = std::to_string(3 * kStride) + "," + std::to_string(kStride) + ",32,1";
  const Problem strided = parse_problem(words + " dout_strides=" + wide + " q_strides=" + wide);
  const SparseMemory dout(static_cast<std::size_t>(2 * kStride + 64) * 2),
      q(static_cast<std::size_t>(2 * kStride + 64) * 2);
  if (dout.data() == nullptr || q.data() == nullptr) GTEST_SKIP() << "NO ROOM for 16 GiB of addresses";
  const Buffers narrow = plain.placed();
  for (std::int64_t token = 0; token < 3; ++token) {
    std::memcpy(dout.data() + token * kStride * 2, static_cast<const std::byte*>(narrow.dout) + token * 128, 128);
    std::memcpy(q.data() + token * kStride * 2, static_cast<const std::byte*>(narrow.q) + token * 128, 128);
  }
  for (const std::string& row : rows_for(strided)) {
    verify::CaseOutputs outputs(strided, cpu(1));
    Buffers buffers = narrow;
    outputs.attach(buffers);
    buffers.dout = dout.data();
    buffers.q = q.data();
    verify::run_plan(plan(strided, cpu(1), row), buffers);
    outputs.fetch();
    OutputBytes bytes;
    for (const verify::Tensor& tensor : outputs.tensors()) bytes.push_back(tensor.bytes());
    EXPECT_TRUE(bytes == output_bytes(plain, row, cpu(1))) << row;
  }
}

// Dao-AILab/flash-attention#1841: four million keys. Every score is 0, every other value 1: o = 1/2, lse = log(keys).
TEST(UserReports, FlashAttention1841FourMillionKeys) {
  constexpr std::int64_t kKeys = std::int64_t{1} << 22;
  const Problem problem =
      parse_problem("fwd b1 hq1 hk1 sq2 sk" + std::to_string(kKeys) + " d8 bf16 causal lse k_strides=0,0,0,1");
  const std::vector<std::uint16_t> zeros(16, 0);
  std::vector<std::uint16_t> v(static_cast<std::size_t>(kKeys * 8), 0);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = i / 8 % 2 == 0 ? 0 : 0x3f80;
  for (const std::string& row : rows_for(problem)) {
    std::vector<std::uint16_t> o(16, 0xffff);
    std::vector<float> lse(2, NAN);
    Buffers buffers;
    buffers.q = buffers.k = zeros.data();
    buffers.v = v.data();
    buffers.o = o.data();
    buffers.lse = lse.data();
    verify::run_plan(plan(problem, cpu(), row), buffers);
    EXPECT_EQ(o, std::vector<std::uint16_t>(16, 0x3f00)) << row;  // 0.5
    EXPECT_NEAR(lse[1], std::log(static_cast<double>(kKeys)), 2e-6) << row;
    EXPECT_NEAR(lse[0], std::log(static_cast<double>(kKeys - 1)), 2e-6) << row;
  }
}

// Dao-AILab/flash-attention#1893, #2244: the deterministic backward changed bits when the machine had other work.
TEST(UserReports, FlashAttention1893ThousandBackwardsUnderLoad) {
  const verify::CaseData data = case_data("bwd b2 hq4 hk2 sq60 sk110 d16 bf16 causal deterministic", cpu(3));
  std::atomic<bool> stop = false;
  std::vector<std::thread> load;
  for (int i = 0; i < 3; ++i) {
    load.emplace_back([&stop] {
      for (std::atomic<unsigned> spins = 0; !stop; ++spins) {
      }
    });
  }
  const std::string row = rows_for(data.problem()).front();
  const Plan chosen = plan(data.problem(), cpu(3), row);
  verify::CaseOutputs outputs(data.problem(), cpu(3));
  Buffers buffers = data.placed();
  outputs.attach(buffers);
  std::vector<std::vector<std::byte>> first;
  int changed = 0;
  verify::run_plan(chosen, buffers, 1000, nullptr, [&](int run) {
    outputs.fetch();
    for (std::size_t i = 0; i < outputs.tensors().size(); ++i) {
      if (run == 0) first.push_back(outputs.tensors()[i].bytes());
      changed += outputs.tensors()[i].bytes() == first[i] ? 0 : 1;
    }
  });
  stop = true;
  for (std::thread& each : load) each.join();
  EXPECT_EQ(changed, 0) << row;
}

// flashinfer-ai/flashinfer#2424: a long request alone and beside many short ones had different bits.
TEST(UserReports, FlashInfer2424LongRequestAmongShortOnes) {
  const std::string words = " hq4 hk2 d32 bf16 causal batch_invariant lse";
  std::string lengths = "1100", total = std::to_string(1100 + 39 * 3);
  for (int i = 0; i < 39; ++i) lengths += ",3";
  for (const bool few_queries : {false, true}) {
    // Data are drawn for each sequence and row, so the first one has the same numbers in both.
    const std::string queries = few_queries ? "1" : "1100";
    std::string query_lengths = queries, query_total = few_queries ? "40" : total;
    for (int i = 0; i < 39; ++i) query_lengths += few_queries ? ",1" : ",3";
    const verify::CaseData alone =
        case_data("fwd b1 sq" + queries + " sk1100 tq" + queries + " tk1100" + words, cpu(2));
    const verify::CaseData among = case_data("fwd b40 sq" + queries + " sk1100 tq" + query_total + " tk" + total +
                                                 words + " | lengths_q=" + query_lengths + " lengths_k=" + lengths,
                                             cpu(2));
    for (const std::string& row : rows_for(among.problem())) {
      const std::vector<std::byte> one = output_bytes(alone, row, cpu(2))[0],
                                   many = output_bytes(among, row, cpu(2))[0];
      ASSERT_GT(many.size(), one.size());
      EXPECT_TRUE(std::equal(one.begin(), one.end(), many.begin())) << row << ", " << queries << " queries";
    }
  }
}

// Dao-AILab/flash-attention#1164, huggingface/transformers#45323: a graph captured with one set of lengths was replayed
// with others. Here one plan serves any lengths within its bounds.
TEST(UserReports, FlashAttention1164OnePlanForOtherLengths) {
  const std::string words = " hq2 hk1 sq300 sk400 d32 bf16 causal tq500 tk600";
  for (const std::string pass : {"fwd b3", "bwd b3"}) {
    const Problem problem = parse_problem(pass + words);
    for (const std::string& row : rows_for(problem)) {
      const Plan kept = plan(problem, cpu(2), row);
      for (const char* lengths : {"lengths_q=300,100,100 lengths_k=400,100,100", "lengths_q=0,1,7 lengths_k=3,0,400",
                                  "lengths_q=200,300,0 lengths_k=200,0,399"}) {
        const verify::CaseData data = case_data(pass + words + " | " + lengths, cpu(2));
        verify::CaseOutputs outputs(problem, cpu(2));
        Buffers buffers = data.placed();
        outputs.attach(buffers);
        verify::run_plan(kept, buffers);
        outputs.fetch();
        OutputBytes bytes;
        for (const verify::Tensor& tensor : outputs.tensors()) bytes.push_back(tensor.bytes());
        EXPECT_TRUE(bytes == output_bytes(data, row, cpu(2))) << row << ' ' << lengths;
        const verify::Case one = verify::parse_case(pass + words + " | " + lengths);
        EXPECT_TRUE(verify::check(one.problem, cpu(2), row, {.data = one.data}).pass) << row << ' ' << lengths;
      }
    }
  }
}

}  // namespace
}  // namespace fattn
