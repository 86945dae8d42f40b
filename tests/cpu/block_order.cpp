// SPDX-License-Identifier: Apache-2.0
#include "cpu/block_order.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace fattn::host {
namespace {

// Every block once, and nothing waits for a later item: then lanes that take items in order never wait for each other
// in a circle, and one lane alone never waits.
TEST(BlockOrder, TakesEveryBlockOnceAndAfterWhatItWaitsFor) {
  for (const std::int64_t pairs : {0, 1, 3, 17}) {
    for (const std::int64_t n : {0, 1, 2, 3, 5, 9, 14}) {
      for (const int lanes : {1, 2, 3, 16}) {
        SCOPED_TRACE(std::to_string(pairs) + " pairs, n = " + std::to_string(n) + ", lanes " + std::to_string(lanes));
        const BlockOrder order(pairs, n, lanes);
        std::vector<std::int64_t> done(static_cast<std::size_t>(pairs * n), 0);  // steps of each row
        std::set<std::tuple<std::int64_t, std::int64_t, std::int64_t>> blocks;
        for (std::int64_t item = 0; item < order.items(); ++item) {
          const BlockRun run = order.at(item);
          for (std::int64_t step = run.first; step < run.last; ++step) {
            ASSERT_LT(run.pair, pairs);
            std::int64_t* const steps = done.data() + run.pair * n;
            ASSERT_EQ(steps[run.row], step);
            ASSERT_GE(steps[(run.row + n - 1) % n], step);
            steps[run.row] = step + 1;
            blocks.insert({run.pair, run.row, (run.row + n - step) % n});
          }
        }
        EXPECT_EQ(static_cast<std::int64_t>(blocks.size()), pairs * n * n);
      }
    }
  }
}

// Steps that each lane would need if every block took as long and lanes took items in turn.
std::int64_t length_of(std::int64_t n, int lanes, bool causal) {
  const BlockOrder order(1, n, lanes);
  std::vector<std::int64_t> free(static_cast<std::size_t>(lanes), 0);
  std::vector<std::vector<std::int64_t>> at(static_cast<std::size_t>(n));  // when each step of a row was done
  std::int64_t end = 0;
  for (std::int64_t item = 0; item < order.items(); ++item) {
    const BlockRun run = order.at(item);
    std::int64_t& now = *std::min_element(free.begin(), free.end());
    for (std::int64_t step = run.first; step < run.last; ++step) {
      auto& row = at[static_cast<std::size_t>(run.row)];
      if (step > 0) now = std::max(now, row.back());
      const auto& before = at[static_cast<std::size_t>((run.row + n - 1) % n)];
      if (step > 0) now = std::max(now, before[static_cast<std::size_t>(step - 1)]);
      now += causal && step > run.row ? 0 : 1;
      row.push_back(now);
      end = std::max(end, now);
    }
  }
  return end;
}

TEST(BlockOrder, LanesHardlyWait) {
  for (const std::int64_t n : {5, 9, 18}) {
    for (const bool causal : {false, true}) {
      const std::int64_t blocks = causal ? n * (n + 1) / 2 : n * n;
      EXPECT_EQ(length_of(n, 1, causal), blocks);
      EXPECT_LE(length_of(n, 2, causal), blocks / 2 + 2) << "n = " << n << (causal ? " causal" : "");
    }
  }
}

}  // namespace
}  // namespace fattn::host
