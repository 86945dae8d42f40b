// SPDX-License-Identifier: Apache-2.0
// Every gradient of the oracle against difference quotients of its forward.
#include <gtest/gtest.h>

#include <functional>

#include "reference/support.hpp"

namespace fattn {
namespace {

double loss(verify::CaseData& forward, const std::vector<double>& dout, const std::vector<double>& dlse) {
  const verify::CaseOutputs outputs = run_row(forward, "reference_forward_fp64");
  double sum = 0;
  const auto add = [&](const char* name, const std::vector<double>& weights) {
    const std::vector<double> values = outputs.tensor(name).values();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      // Weights outside the lengths are NaN, results there 0 or -inf.
      if (std::isfinite(weights[i]) && std::isfinite(values[i])) sum += weights[i] * values[i];
    }
  };
  add("o", dout);
  add("lse", dlse);
  return sum;
}

// Fourth-order central difference of the loss in element `at`.
double quotient(verify::CaseData& forward, const char* input, std::size_t at, double step,
                const std::vector<double>& dout, const std::vector<double>& dlse) {
  verify::Tensor& tensor = forward.tensor(input);
  const std::vector<double> values = tensor.values();
  const auto at_distance = [&](double distance) {
    std::vector<double> moved = values;
    moved[at] += distance;
    tensor.set_values(moved);
    return loss(forward, dout, dlse);
  };
  const double result =
      (8 * (at_distance(step) - at_distance(-step)) - (at_distance(2 * step) - at_distance(-2 * step))) / (12 * step);
  tensor.set_values(values);
  return result;
}

void check_gradients(const std::string& line) {
  SCOPED_TRACE(line);
  const verify::Case one = verify::parse_case(line);
  const Problem& problem = one.problem;
  ASSERT_EQ(problem.dtype, DType::fp64) << "differences need fp64";
  verify::CaseData backward(problem, cpu(1), one.data);
  verify::CaseData forward(forward_of(problem), cpu(1), one.data);
  // Steps of 2^-7 and 2^-10 change fp32 inputs by exactly as much once their low bits are clear.
  for (const char* name : {"bias", "sinks"}) {
    if (name == std::string("bias") ? !problem.score.bias : !problem.sinks) continue;
    std::vector<double> values = forward.tensor(name).values();
    for (double& value : values) value = std::round(value * 0x1p12) * 0x1p-12;
    forward.tensor(name).set_values(values);
    backward.tensor(name).set_values(values);
  }
  const verify::CaseOutputs result = run_row(forward, "reference_forward_fp64");
  backward.set_forward(result.tensor("o"), result.tensor("lse"));
  const verify::CaseOutputs gradients = run_row(backward, "reference_backward_fp64");

  const std::vector<double> dout = backward.tensor("dout").values();
  const std::vector<double> dlse = problem.dlse ? backward.tensor("dlse").values() : std::vector<double>();
  // The lse is stored in fp32: its noise asks for a longer step and leaves fewer digits.
  const double step = problem.dlse ? 0x1p-4 : 0x1p-10, tolerance = problem.dlse ? 4e-5 : 1e-8;
  const auto compare = [&](const char* output, const char* input) {
    const verify::Tensor& gradient = gradients.tensor(output);
    const std::vector<double> values = gradient.values(), inputs = forward.tensor(input).values();
    const double rounding = gradient.dtype() == DType::fp32 ? 1e-6 : 0;
    int compared = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(inputs[i])) {
        EXPECT_EQ(values[i], 0) << output << " at " << i << ": no one reads this input";
        continue;
      }
      const double expected = quotient(forward, input, i, step, dout, dlse);
      ASSERT_NEAR(values[i], expected, (tolerance + rounding) * (1 + std::fabs(expected))) << output << " at " << i;
      ++compared;
    }
    EXPECT_GT(compared, 0) << output;
  };
  compare("dq", "q");
  compare("dk", "k");
  compare("dv", "v");
  if (problem.dbias) compare("dbias", "bias");
  if (problem.dsink) compare("dsink", "sinks");
}

TEST(Gradients, Dense) { check_gradients("bwd b1 hq2 hk2 sq4 sk5 d6 fp64"); }
TEST(Gradients, CausalGroupedHeads) { check_gradients("bwd b2 hq4 hk2 sq4 sk6 d5 dv3 fp64 causal"); }
TEST(Gradients, ChunkAndWindow) { check_gradients("bwd b1 hq2 hk1 sq7 sk7 d4 fp64 chunk=3 window=2,1"); }
TEST(Gradients, TopLeftWithEmptyRows) { check_gradients("bwd b1 hq2 hk2 sq6 sk3 d4 fp64 causal causal_top_left"); }
TEST(Gradients, Softcap) { check_gradients("bwd b1 hq2 hk2 sq4 sk5 d6 fp64 softcap=1.2 | q_scale=2"); }
TEST(Gradients, BiasOfEachShape) {
  for (const char* shape : {"1", "b", "h", "q", "k", "bh", "qk", "bhq", "hk", "bhqk"}) {
    check_gradients("bwd b2 hq2 hk1 sq3 sk4 d3 fp64 causal dbias bias=" + std::string(shape));
  }
}
TEST(Gradients, Alibi) { check_gradients("bwd b2 hq2 hk2 sq4 sk6 d4 fp64 alibi=batch window=3,1"); }
TEST(Gradients, Sinks) { check_gradients("bwd b2 hq4 hk2 sq5 sk4 d4 fp64 causal sinks dsink"); }
TEST(Gradients, LogSumExp) { check_gradients("bwd b1 hq2 hk2 sq3 sk4 d4 fp64 dlse"); }
TEST(Gradients, LogSumExpWithSinksAndEmptyRows) {
  check_gradients("bwd b1 hq2 hk1 sq5 sk3 d4 fp64 causal sinks dsink dlse");
}
TEST(Gradients, Packed) {
  check_gradients("bwd b4 hq2 hk1 sq5 sk6 d4 tq12 tk14 fp64 causal | lengths_q=4,0,5,2 lengths_k=6,3,0,4");
}
TEST(Gradients, PackedUsedLengthsAndEverything) {
  check_gradients(
      "bwd b3 hq4 hk2 sq5 sk6 d4 dv3 tq11 tk15 seqused=qk fp64 window=3,1 softcap=2 bias=hqk alibi sinks dlse dbias "
      "dsink "
      "| seed=5");
}
TEST(Gradients, Documents) {
  check_gradients("bwd b3 hq2 hk1 sq5 sk6 d3 fp64 documents | seed=2");
  check_gradients("bwd b3 hq2 hk1 sq6 sk6 d3 tq13 tk14 fp64 causal documents dlse sinks dsink");
}
TEST(Gradients, Prefix) { check_gradients("bwd b4 hq2 hk2 sq5 sk6 d3 seqused=k fp64 window=2,-1 prefix"); }
TEST(Gradients, BlockSparse) {
  check_gradients("bwd b2 hq2 hk1 sq7 sk8 d3 fp64 block_sparse=3,2,heads bias=qk dbias");
  check_gradients("bwd b2 hq2 hk2 sq7 sk8 d3 tq12 tk13 fp64 block_sparse=2,3,batch sinks dsink");
}
TEST(Gradients, Dropout) {
  check_gradients("bwd b2 hq2 hk1 sq10 sk18 d2 fp64 dropout=0.4");
  check_gradients("bwd b2 hq2 hk1 sq10 sk9 d2 fp64 causal documents softcap=2 bias=k sinks dropout=0.25 dbias dsink");
}
TEST(Gradients, PackedQueriesDenseKeys) { check_gradients("bwd b2 hq2 hk2 sq5 sk4 d4 tq8 fp64 causal"); }

}  // namespace
}  // namespace fattn
