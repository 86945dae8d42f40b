// SPDX-License-Identifier: Apache-2.0
// What docs/numerics.md says about rows, keys and sequences that are not there, on the oracle itself.
#include <gtest/gtest.h>

#include "reference/support.hpp"
#include "verify/threads.hpp"

namespace fattn {
namespace {

verify::CaseOutputs forward(const std::string& line) {
  const verify::Case one = verify::parse_case(line);
  return run_row(verify::CaseData(one.problem, cpu(1), one.data), "reference_forward_fp64");
}

TEST(Edges, RowsWithoutAKeyAreZeroAndMinusInfinity) {
  // 5 queries, 2 keys, bottom right: queries 0 to 2 see nothing.
  const verify::CaseOutputs outputs = forward("fwd b1 hq1 hk1 sq5 sk2 d3 fp64 causal lse max_logit");
  const std::vector<double> o = outputs.tensor("o").values(), lse = outputs.tensor("lse").values();
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(std::isinf(lse[i]) && lse[i] < 0, i < 3) << i;
    for (std::size_t j = 0; j < 3; ++j) EXPECT_EQ(o[i * 3 + j] == 0, i < 3) << i;
  }
  EXPECT_TRUE(std::isfinite(outputs.tensor("max_logit").values()[0]));
}

TEST(Edges, NoKeysAtAll) {
  const verify::CaseOutputs outputs = forward("fwd b2 hq2 hk1 sq3 sk0 d4 bf16 out=fp32 lse max_logit");
  for (const double x : outputs.tensor("o").values()) EXPECT_EQ(x, 0);
  for (const double x : outputs.tensor("lse").values()) EXPECT_EQ(x, -INFINITY);
  for (const double x : outputs.tensor("max_logit").values()) EXPECT_EQ(x, -INFINITY);
}

TEST(Edges, ASinkIsTheDenominatorWhereNoKeyIs) {
  const verify::Case one = verify::parse_case("fwd b1 hq2 hk2 sq2 sk0 d4 fp64 sinks lse");
  verify::CaseData data(one.problem, cpu(1));
  data.tensor("sinks").set_values({1.5, -3});
  const verify::CaseOutputs outputs = run_row(data, "reference_forward_fp64");
  for (const double x : outputs.tensor("o").values()) EXPECT_EQ(x, 0);
  EXPECT_EQ(outputs.tensor("lse").values(), (std::vector<double>{1.5, 1.5, -3, -3}));
}

// d lse / d sink = 1 there: dsink is the sum of dlse over those rows, every other gradient is 0.
TEST(Edges, GradientOfASinkWhereNoKeyIs) {
  const verify::Case one = verify::parse_case("bwd b1 hq2 hk2 sq2 sk0 d4 fp64 sinks dsink dlse");
  verify::CaseData data(one.problem, cpu(1));
  data.tensor("dlse").set_values({1, 2, 4, 8});
  const verify::CaseOutputs result =
      run_row(verify::CaseData(forward_of(one.problem), cpu(1)), "reference_forward_fp64");
  data.set_forward(result.tensor("o"), result.tensor("lse"));
  const verify::CaseOutputs gradients = run_row(data, "reference_backward_fp64");
  for (const double x : gradients.tensor("dq").values()) EXPECT_EQ(x, 0);
  EXPECT_EQ(gradients.tensor("dsink").values(), (std::vector<double>{3, 12}));
}

TEST(Edges, RowsPastTheLengthsAreWritten) {
  const verify::CaseOutputs outputs =
      forward("fwd b2 hq1 hk1 sq4 sk4 d2 tq9 tk9 seqused=q bf16 lse | lengths_q=4,3 lengths_k=4,3 used_q=2,3");
  const std::vector<double> o = outputs.tensor("o").values(), lse = outputs.tensor("lse").values();
  const std::vector<bool> used = {true, true, false, false, true, true, true, false, false};
  for (std::size_t i = 0; i < used.size(); ++i) {
    EXPECT_EQ(std::isfinite(lse[i]), used[i]) << i;
    EXPECT_EQ(o[2 * i] == 0 && o[2 * i + 1] == 0, !used[i]) << i;
  }
}

TEST(Edges, MaxLogitIsBeforeSoftcapAndBiasAndOverVisiblePairs) {
  const verify::Case one =
      verify::parse_case("fwd b2 hq1 hk1 sq1 sk2 d1 fp64 scale=2 softcap=1 bias=1 window=-1,-1 max_logit");
  verify::CaseData data(one.problem, cpu(1));
  data.tensor("q").set_values({1, 1});
  data.tensor("k").set_values({3, -1, 7, 2});
  data.tensor("bias").set_values({100});
  EXPECT_EQ(run_row(data, "reference_forward_fp64").tensor("max_logit").values(), (std::vector<double>{14}));
  verify::CaseData left(verify::parse_case("fwd b2 hq1 hk1 sq1 sk2 d1 fp64 scale=2 causal_top_left max_logit").problem,
                        cpu(1));
  left.tensor("q").set_values({1, 1});
  left.tensor("k").set_values({3, -1, -7, 2});
  EXPECT_EQ(run_row(left, "reference_forward_fp64").tensor("max_logit").values(), (std::vector<double>{6}));
}

TEST(Edges, ScoresOfMinusInfinityAreNoKeys) {
  verify::CaseData data(verify::parse_case("fwd b1 hq1 hk1 sq2 sk2 d1 fp64 bias=qk lse").problem, cpu(1));
  data.tensor("bias").set_values({-INFINITY, -INFINITY, -INFINITY, 0});
  const verify::CaseOutputs outputs = run_row(data, "reference_forward_fp64");
  EXPECT_EQ(outputs.tensor("o").values()[0], 0);
  EXPECT_EQ(outputs.tensor("lse").values()[0], -INFINITY);
  EXPECT_EQ(outputs.tensor("o").values()[1], data.tensor("v").values()[1]);
}

TEST(Edges, NaNInAQueryStaysInItsRow) {
  verify::CaseData data(verify::parse_case("fwd b1 hq1 hk1 sq3 sk4 d2 fp64 lse").problem, cpu(1));
  std::vector<double> q = data.tensor("q").values();
  q[2] = NAN;
  data.tensor("q").set_values(q);
  const verify::CaseOutputs outputs = run_row(data, "reference_forward_fp64");
  const std::vector<double> lse = outputs.tensor("lse").values(), o = outputs.tensor("o").values();
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(std::isnan(lse[i]), i == 1) << i;
    EXPECT_EQ(std::isnan(o[2 * i]), i == 1) << i;
  }
}

// Same bits with one slot of memory, with more, and with threads.
TEST(Edges, ThreadsChangeNoBit) {
  const verify::Case one = verify::parse_case("bwd b3 hq4 hk2 sq9 sk11 d5 fp16 causal sinks dsink | seed=3");
  verify::CaseData data(one.problem, cpu(1), one.data);
  const verify::CaseData before(forward_of(one.problem), cpu(1), one.data);
  const verify::CaseOutputs result = run_row(before, "reference_forward_naive");
  data.set_forward(result.tensor("o"), result.tensor("lse"));
  const verify::CaseOutputs alone = run_row(data, "reference_backward_naive");
  verify::CaseOutputs together(one.problem, cpu(1));
  Buffers buffers = data.masters();
  together.attach(buffers);
  verify::Threads threads(3);
  verify::run_plan(plan(one.problem, cpu(5), "reference_backward_naive"), buffers, 1, &threads);
  together.fetch();
  for (std::size_t i = 0; i < alone.tensors().size(); ++i) {
    EXPECT_EQ(alone.tensors()[i].bytes(), together.tensors()[i].bytes()) << alone.tensors()[i].name();
  }
}

TEST(Edges, RefusalsNameWhatTheyRefuse) {
  const auto reason = [](const char* line, const char* row) {
    try {
      plan(parse_problem(line), cpu(1), row);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(reason("fwd b1 hq1 hk1 sq4 sk4 d8 fp64", "reference_forward_naive").find("dtype = fp64"),
            std::string::npos);
  EXPECT_NE(reason("decode b1 hq1 hk1 sq1 sk4 d8 bf16 cache", "reference_forward_fp64").find("decode"),
            std::string::npos);
}

}  // namespace
}  // namespace fattn
