// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "fattn/plan.hpp"
#include "tool/support.hpp"

namespace fattn::tool {
namespace {

constexpr const char* kForward = "fwd b2 hq4 hk2 sq40 sk50 d16 bf16 causal lse";
constexpr const char* kBackward = "bwd b1 hq2 hk2 sq20 sk20 d8 fp32 window=6,0";

TEST(Check, ComparesEveryRowThatAccepts) {
  for (const char* problem : {kForward, kBackward}) {
    const Outcome outcome = fattn({"check", problem, "--device", "cpu", "--json"});
    EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
    std::set<std::string> rows;
    for (const Json& line : outcome.lines()) {
      EXPECT_TRUE(line["pass"].get<bool>()) << line;
      EXPECT_TRUE(rows.insert(line["kernel"]).second);
      EXPECT_TRUE(has(line["case"], " | seed=")) << line;
      for (const Json& output : line["outputs"]) {
        EXPECT_LE(output["max_error"].get<double>(), output["max_bound"].get<double>());
        EXPECT_GT(output["max_bound"].get<double>(), 0);
      }
    }
    const Pass pass = parse_problem(problem).pass;
    for (const KernelInfo& kernel : kernels()) {
      const bool expected = kernel.compiled && kernel.device == DeviceKind::cpu && kernel.pass == pass;
      // The vector rows are there but decline on older processors.
      if (kernel.name.starts_with("cpu_avx") || kernel.name.starts_with("cpu_amx_")) continue;
      EXPECT_EQ(rows.count(kernel.name), expected) << kernel.name;
    }
  }
}

TEST(Check, PrintsATable) {
  const Outcome outcome = fattn({"check", kForward, kBackward, "--device", "cpu", "--seed", "7"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(has(outcome.out, "max error"));
  EXPECT_TRUE(has(outcome.out, "| seed=7"));
  EXPECT_TRUE(has(outcome.out, "all within bounds")) << outcome.out;
  EXPECT_FALSE(has(outcome.out, "\x1b")) << "colours where there is no terminal";
  EXPECT_EQ(outcome.err, "") << "progress where there is no terminal";
}

TEST(Check, TheSameSeedGivesTheSameErrors) {
  const std::vector<std::string> arguments = {"check", kForward, "--device", "cpu", "--json", "--seed"};
  const auto with = [&](const char* seed) {
    std::vector<std::string> all = arguments;
    all.emplace_back(seed);
    return fattn(all).lines();
  };
  EXPECT_EQ(with("5"), with("5"));
  EXPECT_NE(with("5")[0]["outputs"], with("6")[0]["outputs"]);
  // Without a seed every run draws another one.
  const auto fresh = [&] { return fattn({"check", kForward, "--device", "cpu", "--json"}).lines()[0]["case"]; };
  const Json first = fresh();
  EXPECT_TRUE(fresh() != first || fresh() != first);
  // What is printed repeats what happened.
  const Json again = fattn({"check", first, "--device", "cpu", "--json"}).lines()[0];
  EXPECT_EQ(again["case"], first);
}

TEST(Check, TilesAreNamedWithTheirRow) {
  const Outcome outcome = fattn({"check", kForward, "--device", "cpu", "--kernel",
                                 "cpu_scalar_forward@48x48,cpu_scalar_backward@48x96,cpu_scalar_forward", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(outcome.lines().size(), 2U);
  EXPECT_EQ(outcome.lines()[0]["kernel"], "cpu_scalar_forward@48x48");
  EXPECT_EQ(outcome.lines()[1]["kernel"], "cpu_scalar_forward");
  expect_refused(fattn({"check", kForward, "--device", "cpu", "--kernel", "cpu_scalar_forward@48x47"}),
                 {"'48x47'", "nearest: 48x4"});
}

TEST(Check, AMissIsExitCodeOne) {
  // Products of q and k overflow fp32 but not the oracle's fp64.
  const std::vector<std::string> arguments = {"check",    "fwd b1 hq1 hk1 sq16 sk16 d64 fp32",
                                              "--device", "cpu",
                                              "--kernel", "cpu_scalar_forward",
                                              "--scale",  "6e37",
                                              "--seed",   "3"};
  const Outcome outcome = fattn(arguments);
  EXPECT_EQ(outcome.code, 1) << outcome.out << outcome.err;
  EXPECT_TRUE(has(outcome.out, "MISS")) << outcome.out;
  EXPECT_TRUE(has(outcome.out, "fwd b1 hq1 hk1 sq16 sk16 d64 fp32 | seed=3 q_scale=6e+37")) << outcome.out;
  std::vector<std::string> json = arguments;
  json.emplace_back("--json");
  const Outcome miss = fattn(json);
  EXPECT_EQ(miss.code, 1);
  EXPECT_FALSE(miss.lines()[0]["pass"].get<bool>());
}

TEST(Check, ReadsFilesOfCases) {
  const TemporaryDirectory directory;
  const std::string file = directory / "cases.txt";
  io::write_text(file,
                 "# two cases\nfwd b1 hq1 hk1 sq8 sk8 d8 fp32   # small\n\n"
                 "bwd b2 hq2 hk1 sq16 sk16 d8 fp16 tq20 tk24 causal | seed=9 lengths_q=4,16 lengths_k=8,16\n");
  const Outcome outcome =
      fattn({"check", file, "--device", "cpu", "--kernel", "cpu_scalar_forward,cpu_scalar_backward", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(outcome.lines().size(), 2U) << outcome.out;
  EXPECT_TRUE(has(outcome.lines()[1]["case"], "seed=9 lengths_q=4,16")) << outcome.out;
  io::write_text(file, "fwd b1 hq1 hk1 sq8 sk8 d8 fp32\nfwd b1 hq1 hk1 sq8 sk8 d8 fp33\n");
  expect_refused(fattn({"check", file, "--device", "cpu"}), {"cases.txt:2", "fp33"});
  io::write_text(file, "# nothing\n");
  expect_refused(fattn({"check", file, "--device", "cpu"}), {"no problems"});
}

TEST(Check, RefusesBadInput) {
  expect_refused(fattn({"check", kForward, "--scale", "nan"}), {"--scale", "nan"});
  expect_refused(fattn({"check", kForward, "--scale", "inf"}), {"--scale"});
  expect_refused(fattn({"check", std::string(kForward) + " | q_scale=nan"}), {"not finite"});
  expect_refused(fattn({"check", std::string(kForward) + " | sead=1"}), {"sead"});
  expect_refused(fattn({"check", "no_such_file.txt"}), {"neither a file nor a problem"});
  expect_refused(fattn({"check", "fwd b1 hq1 hk1 sq8 sk8 d8 fp32 whatever"}), {"whatever"});
  expect_refused(fattn({"check", kForward, "--device", "h100"}), {"h100", "described"});
  expect_refused(fattn({"check", kForward, "--device", "cpu", "--kernel", "cpu_fast_forward"}), {"cpu_fast_forward"});
}

TEST(Check, NothingCheckedIsNoSuccess) {
  const Outcome outcome = fattn({"check", "decode b1 hq1 hk1 sq1 sk8 d8 fp32 cache", "--device", "cpu"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_TRUE(has(outcome.err, "no row of this build accepts")) << outcome.err;
}

TEST(Check, VerboseNamesTheRowsThatDecline) {
  const Outcome outcome = fattn({"check", "fwd b1 hq1 hk1 sq8 sk8 d8 fp64", "--device", "cpu", "-v"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(has(outcome.out, "declined\n  cpu_amx_forward")) << outcome.out;
  EXPECT_TRUE(has(outcome.out, "dtype = fp64")) << outcome.out;
}

}  // namespace
}  // namespace fattn::tool
