// SPDX-License-Identifier: Apache-2.0
#include "fattn/plan.hpp"
#include "tool/support.hpp"

namespace fattn::tool {
namespace {

constexpr const char* kSmall = "fwd b2 hq4 hk2 sq64 sk96 d32 fp32 causal";

TEST(Explain, SaysWhatThePlanSays) {
  const Plan chosen = plan(parse_problem(kSmall), cpu());
  const Outcome outcome = fattn({"explain", kSmall, "--device", "cpu"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(has(outcome.out, chosen.kernel())) << outcome.out;
  EXPECT_TRUE(has(outcome.out, kSmall)) << outcome.out;
  const Json json = fattn({"explain", kSmall, "--device", "cpu", "--json"}).json();
  EXPECT_EQ(json["kernel"], chosen.kernel());
  EXPECT_EQ(json["problem"], kSmall);
  EXPECT_EQ(json["workspace_bytes"], chosen.workspace_bytes());
  EXPECT_EQ(json["flops"], flops(chosen.problem()));
  EXPECT_EQ(json["memory_bytes"], chosen.traffic().memory_bytes);
  EXPECT_EQ(json["standard_traffic_bytes"], chosen.traffic().standard_bytes);
  ASSERT_EQ(json["refusals"].size(), chosen.refusals().size());
  for (std::size_t i = 0; i < chosen.refusals().size(); ++i) {
    EXPECT_EQ(json["refusals"][i]["kernel"], chosen.refusals()[i].kernel);
    EXPECT_EQ(json["refusals"][i]["reason"], chosen.refusals()[i].reason);
  }
}

TEST(Explain, AnswersForAGpuThatIsNotHere) {
  constexpr const char* kHopper = "fwd b1 hq8 hk8 sq1024 sk1024 d128 bf16 causal";
  const Outcome outcome = fattn({"explain", kHopper, "--device", "h100", "--json"});
  const Json json = outcome.json();
  bool compiled = false;
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.name == "sm90_forward_bf16_d128_band") compiled = kernel.compiled;
  }
  if (compiled) {
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(json["kernel"], "sm90_forward_bf16_d128_band");
  } else {
    EXPECT_EQ(outcome.code, 2);
    EXPECT_TRUE(json["kernel"].is_null());
    EXPECT_TRUE(has(json["reason"], "sm90_forward_bf16_d128_band: not compiled")) << json;
    EXPECT_TRUE(has(outcome.err, "no kernel row accepts"));
  }
}

TEST(Explain, ForcesARow) {
  const Json json =
      fattn({"explain", kSmall, "--device", "cpu", "--kernel", "reference_forward_fp64", "--json"}).json();
  EXPECT_EQ(json["kernel"], "reference_forward_fp64");
  expect_refused(fattn({"explain", kSmall, "--device", "cpu", "--kernel", "reference_forward_fp65"}),
                 {"reference_forward_fp65", "nearest: reference_forward_fp64"});
  expect_refused(fattn({"explain", kSmall, "--device", "cpu", "--kernel", "reference_backward_fp64"}), {"backward"});
}

TEST(Explain, RefusesBadProblems) {
  const auto refused = [](const std::string& words, std::initializer_list<std::string_view> reasons) {
    expect_refused(fattn({"explain", "fwd b1 hq4 hk2 sq8 sk8 d8 fp32 " + words, "--device", "cpu"}), reasons);
  };
  refused("cuasal", {"cuasal", "nearest"});
  refused("window=1", {"window"});
  refused("scale=nan", {"nan"});
  refused("scale=inf", {"inf"});
  refused("dropout=1", {"dropout", "1"});
  refused("dropout=-0.5", {"dropout"});
  refused("hk3", {"hk"});
  expect_refused(fattn({"explain", "", "--device", "cpu"}), {"nearest"});
  expect_refused(fattn({"explain", "fwd b1 hq4 hk3 sq8 sk8 d8 fp32", "--device", "cpu"}), {"heads_kv", "3"});
  expect_refused(fattn({"explain", kSmall, "--device", "tpu"}), {"tpu", "nearest"});
  expect_refused(fattn({"explain", kSmall, "--device", "cpu:0"}), {"threads"});
}

}  // namespace
}  // namespace fattn::tool
