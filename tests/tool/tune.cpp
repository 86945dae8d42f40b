// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "fattn/choices.hpp"
#include "fattn/plan.hpp"
#include "tool/support.hpp"

namespace fattn::tool {
namespace {

constexpr const char* kProblem = "fwd b1 hq1 hk1 sq100 sk100 d16 fp32 causal";

Outcome tune(std::vector<std::string> more, const std::string& before = "") {
  more.insert(more.begin(), {"tune", kProblem, "--device", "cpu:1", "--samples", "1"});
  return fattn(more, before);
}

TEST(Tune, TimesEveryTileOfARow) {
  const Outcome outcome = tune({"--kernel", "cpu_scalar_forward", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json result = outcome.json();
  EXPECT_EQ(result["problem"], kProblem);
  std::set<std::string> tiles;
  for (const Json& each : result["candidates"]) {
    EXPECT_EQ(each["kernel"], "cpu_scalar_forward");
    EXPECT_TRUE(tiles.insert(each["tile"]).second) << each;
    EXPECT_TRUE(each["launch"].get<std::string>().starts_with(each["tile"].get<std::string>())) << each;
    EXPECT_GT(each["median_us"].get<double>(), 0);
  }
  EXPECT_GE(tiles.size(), 6U);
  EXPECT_EQ(result["usual"], "cpu_scalar_forward@" + result["candidates"][0]["tile"].get<std::string>());
  const Plan usual = plan(parse_problem(kProblem), cpu(1), "cpu_scalar_forward");
  EXPECT_TRUE(usual.launch_shape().tile.starts_with(result["candidates"][0]["tile"].get<std::string>() + " "));
  // What is chosen is the usual one, or one that is faster by more than chance.
  double chosen = 0;
  for (const Json& each : result["candidates"]) {
    if (result["chosen"] == "cpu_scalar_forward@" + each["tile"].get<std::string>()) chosen = each["median_us"];
  }
  const double usual_us = result["candidates"][0]["median_us"];
  EXPECT_TRUE(result["chosen"] == result["usual"] || (chosen > 0 && chosen <= 0.98 * usual_us)) << result;
}

TEST(Tune, WalksEveryRow) {
  const Outcome outcome = tune({});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const KernelInfo& row : kernels()) {
    if (row.device != DeviceKind::cpu || row.pass != Pass::forward || row.by_name_only) continue;
    if (row.name == "cpu_scalar_forward") EXPECT_TRUE(has(outcome.out, row.name)) << outcome.out;
  }
  EXPECT_FALSE(has(outcome.out, "reference")) << "oracles are not for speed";
  EXPECT_TRUE(has(outcome.out, "chosen")) << outcome.out;
}

// What it writes is what plan() reads; a second problem is added, the first replaced.
TEST(Tune, WritesWhatPlanReads) {
  const TemporaryDirectory directory;
  const std::string file = directory / "choices.txt";
  ASSERT_EQ(tune({"--kernel", "cpu_scalar_forward", "--write", file}).code, 0);
  const Choices first = Choices::read(file);
  EXPECT_TRUE(first.kernel_for(parse_problem(kProblem), cpu(1)).starts_with("cpu_scalar_forward@"));
  const std::string other = "bwd b1 hq1 hk1 sq50 sk50 d16 fp32";
  ASSERT_EQ(
      fattn({"tune", other, "--device", "cpu:1", "--samples", "1", "--kernel", "cpu_scalar_backward", "--write", file})
          .code,
      0);
  const Choices both = Choices::read(file);
  EXPECT_EQ(both.kernel_for(parse_problem(kProblem), cpu(1)), first.kernel_for(parse_problem(kProblem), cpu(1)));
  EXPECT_TRUE(both.kernel_for(parse_problem(other), cpu(1)).starts_with("cpu_scalar_backward@"));
  // The plan of the tool takes the row of the file, which is not the one it would take.
  const std::string line = std::string(kProblem) + " | cpu_scalar_forward@48x48 | ";
  const std::string text = both.text();
  const std::string device = text.substr(text.rfind(" | ") + 3);
  io::write_text(file, line + device);
  const Outcome explained = fattn({"explain", kProblem, "--device", "cpu:1", "--json"}, "FATTN_CHOICES='" + file + "'");
  ASSERT_EQ(explained.code, 0) << explained.err;
  EXPECT_EQ(explained.json()["kernel"], "cpu_scalar_forward");
  EXPECT_TRUE(explained.json()["tile"].get<std::string>().starts_with("48x48 ")) << explained.out;
}

TEST(Tune, RefusesBadInput) {
  expect_refused(tune({"--samples", "0"}), {"samples"});
  expect_refused(tune({"--kernel", "cpu_skalar_forward"}), {"cpu_skalar_forward", "nearest: cpu_scalar_forward"});
  expect_refused(fattn({"tune", "decode b1 hq1 hk1 sq1 sk8 d8 fp32 cache", "--device", "cpu"}), {"no kernel row"});
  expect_refused(fattn({"tune", "fwd b1 hq1 hk1 sq8 sk0 d8 fp32", "--device", "cpu"}), {"no work"});
  const TemporaryDirectory directory;
  const std::string file = directory / "choices.txt";
  io::write_text(file, "nonsense\n");
  expect_refused(tune({"--write", file}), {file + ":1: ", "three parts"});
  EXPECT_EQ(io::read_text(file), "nonsense\n") << "a file that was not understood was written over";
  expect_refused(fattn({"explain", kProblem, "--device", "cpu:1"}, "FATTN_CHOICES='" + file + "'"), {file + ":1: "});
}

}  // namespace
}  // namespace fattn::tool
