// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/harness.hpp"
#include "cuda/random_problem.hpp"

// The device oracle against the host's, both in fp64: they may differ by the order of sums and by one final rounding.
namespace fattn::test {
namespace {

std::string device_row(Pass pass) {
  return pass == Pass::forward ? "cuda_reference_forward" : "cuda_reference_backward";
}
std::string host_row(Pass pass) { return pass == Pass::forward ? "reference_forward_fp64" : "reference_backward_fp64"; }

double unit(DType dtype) {
  switch (dtype) {
    case DType::fp64: return 1e-11;
    case DType::fp32: return 1.2e-7;
    case DType::bf16: return 7.9e-3;
    default: return 9.8e-4;
  }
}

void expect_close(const verify::Tensor& actual, const verify::Tensor& expected, const Problem& problem) {
  const std::vector<double> a = actual.values(), e = expected.values();
  ASSERT_EQ(a.size(), e.size());
  const double floor = actual.dtype() == DType::fp16 ? 6e-8 : 1e-11;
  // A score's last bit moves its weight by as much as the score is large, and gradients carry the scale once more.
  const double scale = softmax_scale(problem), growth = std::max(1.0, scale * scale);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == e[i] || (std::isnan(a[i]) && std::isnan(e[i]))) continue;
    ASSERT_LE(std::fabs(a[i] - e[i]), growth * floor + unit(actual.dtype()) * std::fabs(e[i]))
        << actual.name() << "[" << i << "] = " << a[i] << ", expected " << e[i] << "\nproblem: " << to_string(problem);
  }
}

// Runs both oracles on the same data, which `change` may alter first.
template <class Change>
void expect_same(const Problem& problem, const verify::DataOptions& options, Change change) {
  SCOPED_TRACE("seed " + std::to_string(options.seed) + ", problem " + to_string(problem));
  const Plan here = plan(problem, cpu(), host_row(problem.pass)),
             there = plan(problem, cuda(), device_row(problem.pass));
  Placed host(here, options), device(there, options);
  for (Placed* placed : {&host, &device}) {
    change(placed->data);
    placed->place();
  }
  run(here, host.buffers, host.workspace);
  run(there, device.buffers, device.workspace);
  finish(host);
  finish(device);
  for (const verify::Tensor& tensor : device.outputs.tensors())
    expect_close(tensor, host.outputs.tensor(tensor.name()), problem);
}
void expect_same(const Problem& problem, const verify::DataOptions& options = {}) {
  expect_same(problem, options, [](verify::CaseData&) {});
}

// The environment can ask for fewer, for slow checkers of memory.
int random_cases() {
  const char* text = std::getenv("FATTN_TEST_CASES");
  return text != nullptr ? std::atoi(text) : 300;
}

void random_problems(Pass pass) {
  for (int seed = 1; seed <= random_cases() && !::testing::Test::HasFailure(); ++seed) {
    verify::DataOptions options;
    options.seed = static_cast<std::uint64_t>(seed);
    expect_same(RandomProblem(options.seed).draw(pass), options);
  }
}

TEST(CudaReference, RandomForward) {
  FATTN_NEEDS_GPU();
  random_problems(Pass::forward);
}

TEST(CudaReference, RandomBackward) {
  FATTN_NEEDS_GPU();
  random_problems(Pass::backward);
}

// Each case forward and backward; fp64 outputs show what rounding would hide.
template <class Change>
void both_passes(const std::string& text, const std::string& backward_words, const verify::DataOptions& options,
                 Change change) {
  expect_same(parse_problem("fwd " + text + " out=fp64 lse max_logit"), options, change);
  expect_same(parse_problem("bwd " + text + " out=fp64 " + backward_words), options, change);
}
void both_passes(const std::string& text, const std::string& backward_words = "dlse",
                 const verify::DataOptions& options = {}) {
  both_passes(text, backward_words, options, [](verify::CaseData&) {});
}

TEST(CudaReference, WidestHeads) {
  FATTN_NEEDS_GPU();
  both_passes("b1 hq2 hk1 sq65 sk130 d576 dv512 bf16 causal");
}

// Sums over many tiles.
TEST(CudaReference, LongKeys) {
  FATTN_NEEDS_GPU();
  both_passes("b1 hq2 hk1 sq80 sk16384 d128 bf16");
  both_passes("b1 hq2 hk1 sq3000 sk70 d64 fp32 causal_top_left window=-1,2900 bias=k", "dbias");
}

// More sequences and heads than a grid's second and third dimensions hold.
TEST(CudaReference, ManySequences) {
  FATTN_NEEDS_GPU();
  both_passes("b70000 hq2 hk1 sq2 sk3 d4 fp32 sinks", "dlse dsink");
}

// Packed, with sequences that are empty on one side or on both, and rows that belong to none.
TEST(CudaReference, EmptySequences) {
  FATTN_NEEDS_GPU();
  verify::DataOptions options;
  options.lengths_q = {0, 70, 5, 64, 0};
  options.lengths_k = {10, 0, 140, 64, 0};
  for (const char* mask : {"", " causal", " window=9,0 causal_top_left"})
    both_passes(std::string("b5 hq2 hk1 sq70 sk140 tq150 tk300 d16 fp32 sinks") + mask, "dlse dsink", options);
}

// Logits far from zero: nothing over- or underflows.
TEST(CudaReference, ExtremeLogits) {
  FATTN_NEEDS_GPU();
  verify::DataOptions options;
  options.k_ramp = 3;
  for (const char* scale : {"40", "-3000"})
    both_passes(std::string("b1 hq1 sq70 sk90 d16 fp32 scale=") + scale, "dlse", options);
}

// A bias of -inf is a mask too; a row of nothing else is empty.
TEST(CudaReference, InfiniteBias) {
  FATTN_NEEDS_GPU();
  both_passes("b1 hq1 sq66 sk70 d64 fp32 bias=qk", "dbias", {}, [](verify::CaseData& data) {
    verify::Tensor& bias = data.tensor("bias");
    std::vector<double> values = bias.values();
    for (std::size_t n = 0; n < values.size(); ++n)
      if (n / 70 == 5 || (n / 70 + n % 70) % 3 == 0) values[n] = -HUGE_VAL;
    bias.set_values(values);
  });
}

// A NaN that some queries see stays with them, also inside a tile.
TEST(CudaReference, NanInOneVisibleKey) {
  FATTN_NEEDS_GPU();
  both_passes("b1 hq1 sq64 sk64 d64 fp32 window=3,0", "dlse", {}, [](verify::CaseData& data) {
    const std::vector<double> row(64, std::numeric_limits<double>::quiet_NaN());
    data.tensor("v").set_row(40, row.data());
  });
}

}  // namespace
}  // namespace fattn::test
