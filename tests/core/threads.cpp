// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "fattn/fattn.h"
#include "fattn/fattn.hpp"

namespace fattn {
namespace {

constexpr int kThreads = 4;

template <class Body>
void in_threads(Body body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

struct alignas(Plan::workspace_alignment()) Block {
  char bytes[Plan::workspace_alignment()];
};

// One Plan, many runs at once, each with its own workspace and output: the same bits as alone.
TEST(Threads, OnePlanServesThemAll) {
  const Plan plan = fattn::plan(parse_problem("fwd b2 hq4 hk2 sq33 sk70 d16 fp32 causal lse"), cpu(2));
  std::vector<float> q(2 * 33 * 4 * 16), k(2 * 70 * 2 * 16), v(k.size());
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(i % 17) / 8 - 1;
  for (std::size_t i = 0; i < k.size(); ++i) k[i] = static_cast<float>(i % 13) / 6 - 1;
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i % 11) / 5 - 1;

  struct Output {
    std::vector<float> o = std::vector<float>(2 * 33 * 4 * 16, NAN), lse = std::vector<float>(2 * 4 * 33, NAN);
  };
  const auto compute = [&](Output& out, std::vector<Block>& scratch) {
    run(plan, {.q = q.data(), .k = k.data(), .v = v.data(), .o = out.o.data(), .lse = out.lse.data()},
        {scratch.data(), scratch.size() * sizeof(Block)});
  };
  const std::size_t blocks = plan.workspace_bytes() / sizeof(Block) + 1;
  Output alone;
  std::vector<Block> scratch(blocks);
  compute(alone, scratch);

  std::array<Output, kThreads> outputs;
  in_threads([&](int i) {
    std::vector<Block> own(blocks);
    for (int repeat = 0; repeat < 5; ++repeat) compute(outputs[static_cast<std::size_t>(i)], own);
  });
  for (const Output& each : outputs) {
    EXPECT_EQ(std::memcmp(each.o.data(), alone.o.data(), alone.o.size() * sizeof(float)), 0);
    EXPECT_EQ(std::memcmp(each.lse.data(), alone.lse.data(), alone.lse.size() * sizeof(float)), 0);
  }
}

TEST(Threads, PlanningAndErrorsAreIndependent) {
  std::array<std::string, kThreads> explained, errors;
  in_threads([&](int i) {
    const auto at = static_cast<std::size_t>(i);
    const std::string text = "fwd sq" + std::to_string(8 + i) + " d64 fp32";
    for (int repeat = 0; repeat < 20; ++repeat) {
      explained[at] = plan(parse_problem(text), cpu(1)).explain();
      fattn_problem problem;
      fattn_problem_from_text(("fwd wrong" + std::to_string(i)).c_str(), &problem, sizeof problem);
    }
    errors[at] = fattn_last_error();
  });
  for (int i = 0; i < kThreads; ++i) {
    const auto at = static_cast<std::size_t>(i);
    EXPECT_NE(explained[at].find("sq" + std::to_string(8 + i) + " "), std::string::npos) << explained[at];
    EXPECT_NE(errors[at].find("'wrong" + std::to_string(i) + "'"), std::string::npos) << errors[at];
  }
}

}  // namespace
}  // namespace fattn
