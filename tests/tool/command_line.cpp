// SPDX-License-Identifier: Apache-2.0
#include "fattn/attention.hpp"
#include "tool/support.hpp"

namespace fattn::tool {
namespace {

TEST(CommandLine, HelpShowsExamples) {
  for (const char* command : {"info", "explain", "check", "bench", "run", "map", "walk", "tune", "selfcheck"}) {
    const Outcome outcome = fattn({command, "--help"});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_TRUE(has(outcome.out, "Examples:\n  fattn " + std::string(command))) << outcome.out;
    EXPECT_TRUE(has(outcome.out, "--json")) << outcome.out;
    EXPECT_EQ(outcome.err, "");
  }
  const Outcome outcome = fattn({"--help"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(has(outcome.out, "Exit codes"));
}

TEST(CommandLine, VersionIsTheLibrarys) {
  const Version v = version();
  const std::string text =
      std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch) + "\n";
  EXPECT_EQ(fattn({"--version"}).out, text);
}

TEST(CommandLine, RefusesWhatItDoesNotKnow) {
  expect_refused(fattn({}), {"subcommand"});
  expect_refused(fattn({"explode"}), {"explode"});
  expect_refused(fattn({"info", "--jason"}), {"--jason"});
  expect_refused(fattn({"info", "more"}), {"more"});
  expect_refused(fattn({"check"}), {"cases"});
  expect_refused(fattn({"check", "fwd b1", "--seed", "x"}), {"seed"});
  expect_refused(fattn({"run", "f", "--forward-only", "--backward"}), {"excludes"});
}

TEST(CommandLine, AFullStandardOutputIsAnError) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"info"}, {"explain", "fwd b1 hq1 hk1 sq8 sk8 d8 fp32", "--device", "cpu", "--json"}}) {
    const Outcome outcome = fattn(arguments, "", "/dev/full");
    EXPECT_EQ(outcome.code, 2);
    EXPECT_TRUE(has(outcome.err, "standard output")) << outcome.err;
  }
}

TEST(Info, ListsDevicesAndRows) {
  const Outcome outcome = fattn({"info"});
  EXPECT_EQ(outcome.code, 0);
  for (const KernelInfo& kernel : kernels()) EXPECT_TRUE(has(outcome.out, kernel.name)) << outcome.out;
  EXPECT_TRUE(has(outcome.out, cpu().name));
  const Outcome json = fattn({"info", "--json"});
  const Json info = json.json();
  EXPECT_EQ(info["devices"].size(), devices().size());
  EXPECT_EQ(info["devices"][0]["kind"], "cpu");
  EXPECT_FALSE(info["commit"].get<std::string>().empty());
  ASSERT_EQ(info["kernels"].size(), kernels().size());
  for (std::size_t i = 0; i < kernels().size(); ++i) {
    EXPECT_EQ(info["kernels"][i]["name"], kernels()[i].name);
    EXPECT_EQ(info["kernels"][i]["compiled"], kernels()[i].compiled);
    EXPECT_EQ(info["kernels"][i]["by_name_only"], kernels()[i].by_name_only);
  }
}

}  // namespace
}  // namespace fattn::tool
