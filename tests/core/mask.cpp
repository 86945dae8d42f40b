// SPDX-License-Identifier: Apache-2.0
#include "fattn/mask.hpp"

#include "core/expect_error.hpp"
#include "core/lower.hpp"

namespace fattn {
namespace {

TEST(Mask, JoinKeepsEveryAtom) {
  const Mask joined = causal() & causal_top_left() & window(5, 3) & chunk(8) & documents() & prefix() &
                      block_sparse({.block_q = 64, .block_k = 128, .per_head = true});
  EXPECT_EQ(joined, (Mask{.causal = true,
                          .causal_top_left = true,
                          .window_left = 5,
                          .window_right = 3,
                          .chunk = 8,
                          .documents = true,
                          .prefix = true,
                          .block_sparse = {.block_q = 64, .block_k = 128, .per_batch = false, .per_head = true}}));
}

TEST(Mask, JoinIsCommutativeWithNeutralFull) {
  const Mask all[] = {
      full(),       causal(), causal_top_left(), window(5, -1), window(-1, 0),
      window(0, 7), chunk(4), documents(),       prefix(),      block_sparse({.block_q = 2, .block_k = 4})};
  for (const Mask& a : all) {
    EXPECT_EQ(a & full(), a);
    EXPECT_EQ(a & a, a);
    for (const Mask& b : all) EXPECT_EQ(a & b, b & a);
  }
}

TEST(Mask, NarrowerWindowWins) {
  EXPECT_EQ(window(10, -1) & window(3, 8), window(3, 8));
  EXPECT_EQ(window(-1, 0) & window(7, 2), window(7, 0));
}

TEST(Mask, WhatHasNoSingleMaskIsRefused) {
  expect_error(Status::invalid_argument, {"chunk = 4", "chunk = 8", "nearest"}, [] { chunk(4) & chunk(8); });
  expect_error(Status::invalid_argument, {"block_sparse(2x2", "block_sparse(2x4", "nearest"},
               [] { block_sparse({.block_q = 2, .block_k = 2}) & block_sparse({.block_q = 2, .block_k = 4}); });
}

// The definitions in mask.hpp, word by word.
bool keeps(const Mask& m, int seqlen_q, int seqlen_k, int query, int key) {
  const int diagonal = query + seqlen_k - seqlen_q;
  if (m.causal && key > diagonal) return false;
  if (m.causal_top_left && key > query) return false;
  if (m.window_left >= 0 && key < diagonal - m.window_left) return false;
  if (m.window_right >= 0 && key > diagonal + m.window_right) return false;
  const auto floor = [](std::int64_t a, std::int64_t b) { return (a >= 0 ? a : a - b + 1) / b; };
  return m.chunk == 0 || floor(diagonal, m.chunk) == floor(key, m.chunk);
}

TEST(Mask, LoweredBandIsTheDefinition) {
  const Mask masks[] = {full(),
                        causal(),
                        causal_top_left(),
                        window(2, 1),
                        window(-1, 3),
                        window(0, -1),
                        chunk(3),
                        causal() & window(4, 9),
                        causal_top_left() & window(1, 2),
                        chunk(5) & causal(),
                        chunk(4) & window(2, 2),
                        causal() & causal_top_left(),
                        window(std::int64_t{1} << 40, std::int64_t{1} << 50),
                        chunk(std::int64_t{1} << 40)};
  for (const Mask& mask : masks) {
    ASSERT_TRUE(is_band(mask));
    for (const auto& [seqlen_q, seqlen_k] : {std::pair{7, 7}, {3, 11}, {11, 3}, {1, 5}, {5, 0}}) {
      const Band band = Band::of(lower_band(mask), seqlen_q, seqlen_k);
      for (int query = 0; query < seqlen_q; ++query) {
        for (int key = 0; key < seqlen_k; ++key) {
          EXPECT_EQ(band.keep(query, key), keeps(mask, seqlen_q, seqlen_k, query, key))
              << seqlen_q << "x" << seqlen_k << " at " << query << "," << key << " chunk " << mask.chunk;
        }
      }
    }
  }
  for (const Mask& mask : {documents(), prefix(), block_sparse({.block_q = 1, .block_k = 1})}) {
    EXPECT_FALSE(is_band(mask & causal()));
  }
}

}  // namespace
}  // namespace fattn
