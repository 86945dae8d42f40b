// SPDX-License-Identifier: Apache-2.0
// A judge that lets everything pass is worth nothing: results that are a little wrong must miss.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "fattn/error.hpp"
#include "verify/case_line.hpp"
#include "verify/check.hpp"
#include "verify/random.hpp"

namespace fattn::verify {
namespace {

struct Judged {
  Distance error;
  Bound limit;
  bool pass;
};

// Judges the naive row's results for `wrong` as an answer to `right`, on the same data.
std::map<std::string, Judged> judge(const std::string& right, const std::string& wrong) {
  const Case truth = parse_case(right), mistake = parse_case(wrong);
  CaseData data(truth.problem, cpu(2), truth.data), other(mistake.problem, cpu(2), mistake.data);
  if (truth.problem.pass == Pass::backward) {
    add_forward(data);
    add_forward(other);
    other.tensor("o").set_values(data.tensor("o").values());
    other.tensor("lse").set_values(data.tensor("lse").values());
  }
  const CaseOutputs exact = oracle(data), yardstick = naive(data), answer = naive(other);
  std::map<std::string, Judged> judged;
  for (const Tensor& tensor : exact.tensors()) {
    const Distance naive_error = distance(yardstick.tensor(tensor.name()), tensor);
    const Tensor& result = answer.tensor(tensor.name());
    const Distance error = distance(result, tensor);
    const Bound limit = bound(tensor.name(), truth.problem, result.dtype(), naive_error,
                              {naive_error.reference_rms, naive_error.reference_max});
    judged[tensor.name()] = {error, limit, passes(error, limit)};
  }
  return judged;
}

TEST(Judgement, RightAnswersPass) {
  const std::string line = "fwd b2 hq4 hk2 sq200 sk300 d64 bf16 causal lse max_logit";
  for (const auto& [name, judged] : judge(line, line)) EXPECT_TRUE(judged.pass) << name;
}

TEST(Judgement, SmallMistakesMiss) {
  struct Mistake {
    const char *right, *wrong, *output;
  };
  for (const Mistake& m : std::vector<Mistake>{
           {"fwd b1 hq2 hk2 sq200 sk200 d64 bf16 causal", "fwd b1 hq2 hk2 sq200 sk200 d64 bf16 causal scale=0.127",
            "o"},
           {"fwd b1 hq2 hk2 sq200 sk200 d64 bf16 window=64,0", "fwd b1 hq2 hk2 sq200 sk200 d64 bf16 window=65,0", "o"},
           {"fwd b1 hq2 hk2 sq200 sk200 d64 bf16 causal", "fwd b1 hq2 hk2 sq200 sk200 d64 bf16 window=198,0", "o"},
           {"fwd b1 hq2 hk2 sq200 sk200 d64 bf16 softcap=20", "fwd b1 hq2 hk2 sq200 sk200 d64 bf16", "o"},
           {"fwd b1 hq2 hk2 sq40 sk40 d64 bf16 sinks", "fwd b1 hq2 hk2 sq40 sk40 d64 bf16", "o"},
           {"fwd b1 hq2 hk2 sq200 sk200 d64 fp32 lse", "fwd b1 hq2 hk2 sq200 sk200 d64 fp32 lse scale=0.12501", "lse"},
           {"fwd b1 hq2 hk2 sq200 sk200 d64 fp32 lse", "fwd b1 hq2 hk2 sq200 sk200 d64 fp32 lse scale=0.12501", "o"},
           {"bwd b1 hq2 hk2 sq200 sk200 d64 bf16", "bwd b1 hq2 hk2 sq200 sk200 d64 bf16 softcap=20", "dq"},
           {"bwd b1 hq2 hk2 sq200 sk200 d64 bf16 dlse", "bwd b1 hq2 hk2 sq200 sk200 d64 bf16", "dk"},
           {"bwd b1 hq2 hk2 sq60 sk60 d64 bf16 causal", "bwd b1 hq2 hk2 sq60 sk60 d64 bf16 window=57,0", "dv"},
       }) {
    const Judged judged = judge(m.right, m.wrong).at(m.output);
    EXPECT_FALSE(judged.pass) << m.output << "\n  " << m.right << "\n  " << m.wrong << "\n  max " << judged.error.max
                              << " of " << judged.limit.max << ", RMS " << judged.error.rms << " of "
                              << judged.limit.rms;
  }
}

// Noise of a few rounding units more than the naive's own, on every element or on a single one.
TEST(Judgement, NoiseBeyondTheYardstickMisses) {
  const Case one = parse_case("fwd b1 hq2 hk2 sq100 sk100 d64 bf16");
  CaseData data(one.problem, cpu(2), one.data);
  const CaseOutputs exact = oracle(data), yardstick = naive(data);
  const Tensor& truth = exact.tensor("o");
  const Distance naive_error = distance(yardstick.tensor("o"), truth);
  const Bound limit =
      bound("o", one.problem, DType::bf16, naive_error, {naive_error.reference_rms, naive_error.reference_max});
  Random random(3);
  std::vector<double> noisy = truth.values();
  for (double& x : noisy) x += 3 * naive_error.rms * random.normal();
  Tensor answer("o", DType::bf16, truth.extents());
  answer.set_values(noisy);
  EXPECT_FALSE(passes(distance(answer, truth), limit));
  std::vector<double> spoilt = truth.values();
  spoilt[4321] += 4 * naive_error.max + 2 * rounding_unit(DType::bf16) * naive_error.reference_rms;
  answer.set_values(spoilt);
  EXPECT_FALSE(passes(distance(answer, truth), limit));
  answer.set_values(truth.values());
  EXPECT_TRUE(passes(distance(answer, truth), limit));
}

// dP - delta of one query and one key is what two orders of one sum differ by. The sum may be near 0, its terms are
// not, and those say how exact it can be.
TEST(Judgement, OneProductIsMeasuredByItsTermsNotByItsSum) {
  double least = INFINITY, most = 0;
  for (int seed = 1; seed <= 24; ++seed) {
    const Case one = parse_case("bwd b1 hq1 hk1 sq1 sk1 d256 fp16 | seed=" + std::to_string(seed));
    CaseData data(one.problem, cpu(1), one.data);
    add_forward(data);
    const Magnitude dq = magnitudes(data, oracle(data))[0];
    least = std::min(least, dq.rms), most = std::max(most, dq.rms);
  }
  EXPECT_GT(least, most / 8);
}

// Equal scores: adding 95 equal weights one after the other in fp32 errs by 57 units, the same way in every row, so the
// row has to add them better; and what is left of dsink's 384 terms is less than they are.
TEST(Judgement, ManyEqualWeightsAndASink) {
  const Case one = parse_case(
      "bwd b3 hq8 hk1 sq128 sk95 d128 fp32 sinks dsink align=256 v_strides=12160,128,12160,1 "
      "o_strides=140288,1096,136,1 | seed=457573 q_scale=0");
  CaseData data(one.problem, cpu(1), one.data);
  add_forward(data);
  const CaseOutputs truth = oracle(data);
  const std::vector<Magnitude> terms = magnitudes(data, truth);
  const std::vector<Distance> naive_errors = yardstick(data, truth);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    Tensor answer = truth.tensors()[i];
    if (answer.name() != "dsink") continue;
    const Distance own = distance(answer, answer);
    EXPECT_GT(terms[i].max, 1.5 * own.reference_max);
    EXPECT_LT(terms[i].max, 4 * own.reference_max);
    // An error of what one pair of sums of 95 equal weights costs is noticed.
    std::vector<double> spoilt = truth.tensors()[i].values();
    for (double& value : spoilt) value *= 1 + 57 * rounding_unit(DType::fp32);
    answer.set_values(spoilt);
    const Bound limit = bound("dsink", one.problem, DType::fp32, naive_errors[i], terms[i]);
    EXPECT_FALSE(passes(distance(answer, truth.tensors()[i]), limit));
  }
  for (const char* row : {"reference_backward_fp32", "cpu_scalar_backward"}) {
    const CheckResult result = check(data, row);
    EXPECT_TRUE(result.pass) << result.table();
  }
}

TEST(Judgement, MisplacedNaNsAndInfinitiesMiss) {
  Tensor oracle("lse", DType::fp32, {1, 1, 1, 3}), result("lse", DType::fp32, {1, 1, 1, 3});
  oracle.set_values({1, -INFINITY, 2});
  for (const std::vector<double>& values :
       {std::vector<double>{1, 0, 2}, {1, INFINITY, 2}, {1, NAN, 2}, {-INFINITY, -INFINITY, 2}, {1, -1e30, 2}}) {
    result.set_values(values);
    EXPECT_EQ(distance(result, oracle).misplaced, 1);
    EXPECT_FALSE(passes(distance(result, oracle), {1e30, 1e30}));
  }
  result.set_values({1, -INFINITY, 2});
  EXPECT_TRUE(passes(distance(result, oracle), {0, 0}));
}

TEST(Judgement, ALineReproducesTheResult) {
  const Case one = parse_case("bwd b3 hq2 hk1 sq30 sk40 d16 tq70 tk80 bf16 causal sinks dsink | seed=41 q_scale=2");
  const CheckResult first = check(one.problem, cpu(2), "reference_backward_naive", {.data = one.data});
  const Case again = parse_case(first.line());
  const CheckResult second = check(again.problem, cpu(2), "reference_backward_naive", {.data = again.data});
  EXPECT_EQ(first.table(), second.table());
  EXPECT_TRUE(first.pass) << first.table();
  EXPECT_EQ(first.outputs.size(), 4u);
}

TEST(Judgement, ARowThatDeclinesThrowsBeforeAnyWork) {
  EXPECT_THROW(check(parse_problem("fwd b1 hq1 hk1 sq4 sk4 d8 fp64"), cpu(1), "reference_forward_naive"), Error);
}

TEST(Judgement, EveryRowAnswers) {
  const Problem problem = parse_problem("fwd b1 hq1 hk1 sq4 sk4 d8 fp64");
  std::size_t rows = 0;
  for (const KernelInfo& row : kernels()) rows += row.device == DeviceKind::cpu && row.pass == Pass::forward ? 1 : 0;
  EXPECT_EQ(row_answers(problem, cpu(1)).size(), rows);
  const std::vector<std::string> accepting = accepting_rows(problem, cpu(1));
  EXPECT_NE(std::find(accepting.begin(), accepting.end(), "reference_forward_fp64"), accepting.end());
  EXPECT_EQ(std::find(accepting.begin(), accepting.end(), "reference_forward_naive"), accepting.end());
}

}  // namespace
}  // namespace fattn::verify
