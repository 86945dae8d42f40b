// SPDX-License-Identifier: Apache-2.0
#include "selfcheck.hpp"

#include <gtest/gtest.h>

#include <set>

#include "core/extents.hpp"
#include "random_problem.hpp"
#include "tool/support.hpp"

namespace fattn::tool {
namespace {

verify::CheckResult honest(verify::Judge& judge, const std::string& kernel) { return judge.check(kernel); }

TEST(Selfcheck, PassesAndCounts) {
  const Outcome outcome = fattn({"selfcheck", "--problems", "6", "--seed", "11", "--device", "cpu", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  const Json result = outcome.json();
  EXPECT_EQ(result["problems"], 6);
  EXPECT_EQ(result["seed"], 11);
  EXPECT_TRUE(result["misses"].empty());
  int checks = 0;
  for (const auto& [kernel, count] : result["checks_of"].items()) checks += count.get<int>();
  EXPECT_EQ(result["checks"], checks);
  EXPECT_GT(checks, 6);
  const Outcome text = fattn({"selfcheck", "--problems", "3", "--seed", "11", "--device", "cpu"});
  EXPECT_EQ(text.code, 0);
  EXPECT_TRUE(has(text.out, "seed 11: 3 random problems")) << text.out;
  EXPECT_TRUE(has(text.out, "all within bounds")) << text.out;
}

// A row that is wrong is found, named, and its problem line printed in a form that check reads.
TEST(Selfcheck, AMissNamesRowAndProblem) {
  SelfcheckOptions options;
  options.device = cpu(1);
  options.seed = 5;
  options.problems = 8;
  const auto lying = [](verify::Judge& judge, const std::string& kernel) {
    verify::CheckResult result = judge.check(kernel);
    if (kernel == "cpu_scalar_forward") result.pass = false;
    if (kernel == "cpu_scalar_backward") throw Error(Status::internal_error, "wrote outside its workspace");
    return result;
  };
  Progress progress;
  std::vector<std::string> heard;
  const SelfcheckResult result =
      selfcheck(options, progress, lying, [&](const SelfcheckMiss& miss) { heard.push_back(miss.line); });
  std::int64_t expected = 0;
  for (const char* row : {"cpu_scalar_forward", "cpu_scalar_backward"}) expected += result.checks_of.at(row);
  EXPECT_GE(expected, 2);
  ASSERT_EQ(static_cast<std::int64_t>(result.misses.size()), expected);
  EXPECT_EQ(heard.size(), result.misses.size());
  for (const SelfcheckMiss& miss : result.misses) {
    EXPECT_TRUE(miss.kernel.starts_with("cpu_scalar_")) << miss.kernel;
    EXPECT_EQ(verify::to_line(verify::parse_case(miss.line)), miss.line);
    EXPECT_FALSE(miss.what.empty());
  }
}

TEST(Selfcheck, StopsWhenTheTimeIsOver) {
  SelfcheckOptions options;
  options.device = cpu(1);
  options.minutes = 1e-9;
  Progress progress;
  const SelfcheckResult result = selfcheck(options, progress, honest, [](const SelfcheckMiss&) {});
  EXPECT_LE(result.problems, 1);
}

// The problems are valid, differ, come back for the same seed, and among them each thing that a problem can say.
TEST(Selfcheck, DrawsEverythingThatAProblemCanSay) {
  std::set<std::string> lines;
  std::set<std::string> words;
  for (std::int64_t i = 0; i < 3000; ++i) {
    const verify::Case one = random_case(7, i);
    ASSERT_NO_THROW(validate(one.problem)) << verify::to_line(one);
    const std::string line = verify::to_line(one);
    lines.insert(line);
    if (i < 50) EXPECT_EQ(verify::to_line(random_case(7, i)), line);
    std::istringstream text(line);
    for (std::string word; text >> word;) words.insert(word.substr(0, word.find_first_of("=0123456789")));
  }
  EXPECT_GT(lines.size(), 2990U);
  EXPECT_NE(verify::to_line(random_case(8, 0)), verify::to_line(random_case(7, 0)));
  for (const char* word : {"fwd",
                           "bwd",
                           "decode",
                           "tq",
                           "tk",
                           "dv",
                           "seqused",
                           "fp",
                           "bf",
                           "e",
                           "out",
                           "causal",
                           "window",
                           "chunk",
                           "documents",
                           "prefix",
                           "scale",
                           "softcap",
                           "bias",
                           "alibi",
                           "sinks",
                           "dropout",
                           "descale",
                           "lse",
                           "max_logit",
                           "dlse",
                           "dbias",
                           "dsink",
                           "align",
                           "block_sparse",
                           "deterministic",
                           "q_strides",
                           "k_strides",
                           "v_strides",
                           "o_strides",
                           "dout_strides",
                           "dq_strides",
                           "dk_strides",
                           "dv_strides",
                           "cache",
                           "paged",
                           "append",
                           "leftpad",
                           "rotary",
                           "q_scale",
                           "k_ramp",
                           "bias_shift",
                           "batch_invariant",
                           "causal_top_left"}) {
    EXPECT_EQ(words.count(word), 1U) << word;
  }
}

TEST(Selfcheck, RefusesBadInput) {
  expect_refused(fattn({"selfcheck", "--minutes", "0"}), {"--minutes = 0", "nearest: 1"});
  expect_refused(fattn({"selfcheck", "--minutes", "nan"}), {"--minutes = nan"});
  expect_refused(fattn({"selfcheck", "--problems", "-1"}), {"--problems = -1"});
  expect_refused(fattn({"selfcheck", "--device", "h100"}), {"h100", "nearest: cpu"});
  expect_refused(fattn({"selfcheck", "more"}), {"more"});
}

}  // namespace
}  // namespace fattn::tool
