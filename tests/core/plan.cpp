// SPDX-License-Identifier: Apache-2.0
#include "core/plan.hpp"

#include <cstdlib>

#include "core/expect_error.hpp"
#include "core/fake_rows.hpp"

namespace fattn {
namespace {

TEST(Plan, FirstAcceptingRowWins) {
  const Plan d128 = fake_plan("fwd sq8 d128");
  EXPECT_EQ(d128.kernel(), "cpu_fast_forward");
  ASSERT_EQ(d128.refusals().size(), 2u);
  EXPECT_EQ(d128.refusals()[0].kernel, "sm90_forward");
  EXPECT_EQ(d128.refusals()[0].reason, "device = cpu: this row runs on cuda");
  EXPECT_EQ(d128.refusals()[1].kernel, "cpu_absent_forward");
  EXPECT_EQ(d128.refusals()[1].reason, "not compiled into this library");

  const Plan d80 = fake_plan("fwd sq8 d80");
  EXPECT_EQ(d80.kernel(), "cpu_plain_forward");
  ASSERT_EQ(d80.refusals().size(), 3u);
  EXPECT_EQ(d80.refusals()[2].reason, "head_dim = 80: this row has 128");

  EXPECT_EQ(fake_plan("fwd sq8 d128", h100()).kernel(), "sm90_forward");
  EXPECT_EQ(fake_plan("bwd sq8 d128").kernel(), "cpu_plain_backward");
}

TEST(Plan, CarriesWhatItWasMadeOf) {
  fake::workspace_bytes = 4096;
  const Plan plan = fake_plan("fwd sq8 d128 causal", cpu(3));
  fake::workspace_bytes = 0;
  EXPECT_EQ(to_string(plan.problem()), "fwd b1 hq1 hk1 sq8 sk8 d128 bf16 causal");
  EXPECT_EQ(plan.device().threads, 3);
  EXPECT_EQ(plan.workspace_bytes(), 4096u);
  EXPECT_EQ(plan.launch_shape().grid, 7);
  EXPECT_EQ(plan.launch_shape().threads, 3);
}

TEST(Plan, NoRowAccepts) {
  expect_error(Status::unsupported,
               {"no kernel row", "cpu_fast_forward: device = cuda: this row runs on cpu", "sm90_forward: head_dim = 80",
                "fwd b1 hq1 hk1 sq8 sk8 d80 bf16"},
               [] { fake_plan("fwd sq8 d80", h100()); });
}

TEST(Plan, OraclesAreNeverAFallback) {
  expect_error(Status::unsupported, {"reference_decode: an oracle, chosen by name only"},
               [] { fake_plan("decode sq1 sk8 d80"); });
  EXPECT_EQ(fake_plan("decode sq1 sk8 d80", cpu(1), "reference_decode").kernel(), "reference_decode");
}

TEST(Plan, InvalidProblemsAreRefusedFirst) {
  expect_error(Status::invalid_argument, {"heads_kv = 5 must divide heads_q = 32; nearest: 4"},
               [] { plan_from(fake::table, {.heads_q = 32, .heads_kv = 5}, cpu(), {}); });
}

// Products of sizes that overflow 63 bits are refused with the number that can shrink, not computed.
TEST(Plan, SizesThatNoMachineHoldsAreRefused) {
  for (const char* pass : {"fwd", "bwd"}) {
    for (const char* sizes : {" b2147483647 hq2147483647 hk1 sq1073741823 sk1073741823 d1 tq1 tk1",
                              " b2147483647 hq1 hk1 sq1073741823 sk1073741823 d1 tq2147483647 tk2147483647",
                              " b2000000000 hq64 hk64 sq512 sk512 d128 tq4096 tk4096"}) {
      const std::string text = std::string(pass) + sizes;
      expect_error(Status::unsupported, {"batch = ", "too large to be planned", "nearest: "},
                   [&] { plan(parse_problem(text), cpu(2), {}); });
    }
  }
  EXPECT_NO_THROW(plan(parse_problem("bwd b1 hq64 hk64 sq1048576 sk1048576 d128 bf16"), cpu(2), {}));
}

// A device is a value that anyone may write: no million threads are started for it, and no instruction that is not
// here.
TEST(Plan, DevicesThatCannotBeAreRefused) {
  const Problem problem = parse_problem("fwd b1 hq1 hk1 sq8 sk8 d64 bf16");
  for (const int threads : {0, -1, 4097, 2147483647}) {
    Device device = cpu(1);
    device.threads = threads;
    expect_error(Status::invalid_argument, {"device.threads = " + std::to_string(threads), "nearest: "},
                 [&] { plan(problem, device, {}); });
  }
  Device device = cpu(1);
  if (!device.amx_bf16) {
    device.amx_bf16 = true;
    expect_error(Status::invalid_argument, {"device.amx_bf16 = true", "nearest: false"},
                 [&] { plan(problem, device, {}); });
    device.index = -1;
    EXPECT_NO_THROW(plan(problem, device, {}));
  }
}

TEST(Plan, ForcedRow) {
  EXPECT_EQ(fake_plan("fwd sq8 d128", cpu(1), "reference_forward").kernel(), "reference_forward");
  EXPECT_TRUE(fake_plan("fwd sq8 d128", cpu(1), "reference_forward").refusals().empty());
  // The first of the list whose pass and device fit.
  const std::string_view list = "sm90_forward, cpu_plain_backward,cpu_plain_forward,reference_forward";
  EXPECT_EQ(fake_plan("fwd sq8 d128", cpu(1), list).kernel(), "cpu_plain_forward");
  EXPECT_EQ(fake_plan("bwd sq8 d128", cpu(1), list).kernel(), "cpu_plain_backward");
  EXPECT_EQ(fake_plan("fwd sq8 d128", h100(), list).kernel(), "sm90_forward");
  EXPECT_EQ(fake_plan("fwd sq8 d128", cpu(1), " , ").kernel(), "cpu_fast_forward");  // an empty list forces nothing
}

TEST(Plan, ForcedRowFailsWithItsReason) {
  expect_error(Status::unsupported, {"cpu_fast_forward", "head_dim = 80: this row has 128"},
               [] { fake_plan("fwd sq8 d80", cpu(1), "cpu_fast_forward,cpu_plain_forward"); });
  expect_error(Status::unsupported, {"cpu_absent_forward", "not compiled into this library"},
               [] { fake_plan("fwd sq8 d80", cpu(1), "cpu_absent_forward"); });
  expect_error(Status::unsupported, {"no forward row for cpu", "cpu_plain_backward: a backward row for cpu"},
               [] { fake_plan("fwd sq8 d80", cpu(1), "cpu_plain_backward"); });
  expect_error(Status::invalid_argument, {"'cpu_plan_forward'", "nearest: cpu_plain_forward"},
               [] { fake_plan("fwd sq8 d80", cpu(1), "cpu_plan_forward"); });
  expect_error(Status::invalid_argument, {"'typo'"},
               [] { fake_plan("fwd sq8 d80", cpu(1), "cpu_plain_forward,typo"); });
}

TEST(Plan, EnvironmentForcesRows) {
  const Problem problem = parse_problem("fwd sq8 d64 fp32");
  ASSERT_EQ(setenv("FATTN_KERNEL", "reference_forward_fp64", 1), 0);
  EXPECT_EQ(plan(problem, cpu(1)).kernel(), "reference_forward_fp64");
  EXPECT_EQ(plan(problem, cpu(1), "reference_forward_fp32").kernel(), "reference_forward_fp32");  // the argument wins
  ASSERT_EQ(setenv("FATTN_KERNEL", "reference_forward_fp46", 1), 0);
  expect_error(Status::invalid_argument, {"reference_forward_fp46", "nearest: reference_forward_fp64"},
               [&] { plan(problem, cpu(1)); });
  ASSERT_EQ(unsetenv("FATTN_KERNEL"), 0);
  EXPECT_EQ(std::string(plan(problem, cpu(1)).kernel()).find("reference"), std::string::npos);
}

}  // namespace
}  // namespace fattn
