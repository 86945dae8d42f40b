// SPDX-License-Identifier: Apache-2.0
#include <regex>
#include <set>

#include "fattn/plan.hpp"
#include "tool/support.hpp"

namespace fattn::tool {
namespace {

constexpr const char* kForward = "fwd b1 hq2 hk1 sq64 sk64 d32 fp32 causal";
constexpr const char* kBackward = "bwd b1 hq2 hk1 sq64 sk64 d32 bf16 causal";

void expect_record(const Json& record) {
  const std::set<std::string> fields = {"run",          "date",    "commit",           "device",       "impl",
                                        "impl_version", "problem", "kernel",           "direction",    "median_us",
                                        "min_us",       "tflops",  "fraction_of_peak", "sm_clock_mhz", "bytes"};
  std::set<std::string> found;
  for (const auto& [key, value] : record.items()) found.insert(key);
  EXPECT_EQ(found, fields);
  EXPECT_TRUE(std::regex_match(record["run"].get<std::string>(), std::regex("\\d{8}T\\d{6}Z"))) << record;
  EXPECT_TRUE(std::regex_match(record["date"].get<std::string>(), std::regex("\\d{4}-\\d{2}-\\d{2}"))) << record;
  EXPECT_EQ(record["impl"], "fattn");
  EXPECT_GT(record["min_us"].get<double>(), 0);
  EXPECT_LE(record["min_us"].get<double>(), record["median_us"].get<double>());
  const Problem problem = parse_problem(record["problem"].get<std::string>());
  EXPECT_NEAR(record["tflops"].get<double>(), flops(problem) / record["median_us"].get<double>() / 1e6, 1e-9);
  EXPECT_EQ(record["direction"], problem.pass == Pass::backward ? "backward" : "forward");
  EXPECT_TRUE(record["sm_clock_mhz"].is_null() || record["sm_clock_mhz"].get<double>() > 0);
  EXPECT_EQ(record["fraction_of_peak"].is_number(), cpu().avx2);
}

TEST(Bench, WritesRecords) {
  const TemporaryDirectory directory;
  const std::string file = directory / "records.jsonl";
  const Outcome outcome = fattn({"bench", kForward, kBackward, "--device", "cpu", "--samples", "2", "-o", file});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "") << "progress where there is no terminal";
  const std::vector<Json> records = outcome.lines();
  ASSERT_EQ(records.size(), 2U);
  for (const Json& record : records) {
    expect_record(record);
    EXPECT_EQ(record["run"], records[0]["run"]);
  }
  EXPECT_EQ(records[0]["kernel"], plan(parse_problem(kForward), cpu()).kernel());
  EXPECT_EQ(io::read_text(file), outcome.out);
}

TEST(Bench, TimesRowsInTurn) {
  const Outcome outcome = fattn({"bench", kForward, "--device", "cpu:1", "--samples", "1", "--kernel",
                                 "cpu_scalar_forward,reference_forward_fp32"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(outcome.lines().size(), 2U);
  EXPECT_EQ(outcome.lines()[0]["kernel"], "cpu_scalar_forward");
  EXPECT_EQ(outcome.lines()[1]["kernel"], "reference_forward_fp32");
  EXPECT_TRUE(has(outcome.lines()[0]["device"], "1 thread"));
  const Outcome all = fattn({"bench", kForward, "--device", "cpu", "--samples", "1", "--all"});
  for (const Json& record : all.lines()) EXPECT_FALSE(has(record["kernel"], "reference")) << record;
}

TEST(Bench, CountsTheWorkOfPackedSequencesAsTheyAre) {
  const Outcome outcome = fattn({"bench", "fwd b2 hq1 hk1 sq64 sk64 d16 tq64 tk64 fp32 | lengths_q=60,4 lengths_k=60,4",
                                 "--device", "cpu", "--samples", "1"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json record = outcome.lines()[0];
  const double work = (60.0 * 60 + 4 * 4) * 2 * (16 + 16);
  EXPECT_NEAR(record["tflops"].get<double>() * record["median_us"].get<double>() * 1e6, work, 1);
}

TEST(Bench, PrintsATable) {
  const Outcome outcome = fattn({"bench", kForward, "--device", "cpu", "--samples", "1", "--table"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(has(outcome.out, "median")) << outcome.out;
  EXPECT_TRUE(has(outcome.out, kForward)) << outcome.out;
}

TEST(Bench, AFullDiskLeavesNoFile) {
  const TemporaryDirectory directory;
  const Outcome outcome = fattn({"bench", kForward, "--device", "cpu", "--samples", "1", "-o", directory / "r.jsonl"},
                                "ulimit -f 0;", "/dev/null");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(directory.entries(), 0U);
}

TEST(Bench, RefusesBadInput) {
  expect_refused(fattn({"bench", kForward, "--samples", "0"}), {"--samples"});
  expect_refused(fattn({"bench", kForward, "--device", "h200"}), {"h200"});
  expect_refused(fattn({"bench"}), {"cases"});
  expect_refused(fattn({"bench", kForward, "-o", "/dev/full"}), {"not a regular file"});
  expect_refused(fattn({"bench", kForward, "-o", "/no/such/folder/file"}), {"cannot write"});
  expect_refused(fattn({"bench", "fwd b1 hq1 hk1 sq8 sk0 d8 fp32", "--device", "cpu"}), {"no work"});
  expect_refused(fattn({"bench", "fwd b1 hq1 hk1 sq8 sk8 d8 fp64", "--device", "cpu"}), {"cpu_scalar_forward", "fp64"});
}

}  // namespace
}  // namespace fattn::tool
