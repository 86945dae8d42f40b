// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "cpu/support.hpp"
#include "fattn/error.hpp"

namespace fattn {
namespace {

std::string refusal(const std::string& line, const std::string& row, const Device& device = cpu(1)) {
  try {
    plan(parse_problem(line), device, row);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Decline, NamesArgumentAndValue) {
  struct {
    const char* line;
    const char* words;
  } const cases[] = {
      {"fwd sq8 sk8 d64 fp64", "dtype = fp64: this row has fp32, bf16 and fp16"},
      {"fwd sq8 sk8 d64 e4m3", "dtype = e4m3"},
      {"fwd sq8 sk8 d64 fp32 out=fp64", "out_dtype = fp64"},
  };
  for (const std::string& target : targets("")) {
    for (const auto& one : cases) {
      const std::string reason = refusal(one.line, "cpu_" + target + "_forward");
      EXPECT_NE(reason.find(one.words), reason.npos) << one.line << ": " << reason;
    }
  }
}

TEST(Decline, Avx2NeedsAvx2) {
  Device old = cpu(1);
  old.avx2 = false;
  const std::string reason = refusal("bwd sq8 sk8 d64 bf16", "cpu_avx2_backward", old);
  EXPECT_NE(reason.find("AVX2"), reason.npos) << reason;
  old.avx512 = old.avx512_bf16 = old.amx_bf16 = false;
  EXPECT_EQ(plan(parse_problem("bwd sq8 sk8 d64 bf16"), old).kernel(), "cpu_scalar_backward");
}

TEST(Decline, Avx512NeedsAvx512) {
  Device old = cpu(1);
  old.avx512 = false;
  const std::string reason = refusal("bwd sq8 sk8 d64 bf16", "cpu_avx512_backward", old);
  EXPECT_NE(reason.find("AVX-512"), reason.npos) << reason;
}

TEST(Decline, PairsAreBf16) {
  Device every = cpu(1);
  every.index = -1;
  every.avx2 = every.avx512 = every.avx512_bf16 = every.amx_bf16 = true;
  for (const char* row : {"cpu_amx_forward", "cpu_avx512_bf16_forward", "cpu_amx_emulated_forward"}) {
    const std::string reason = refusal("fwd sq8 sk8 d64 fp16", row, every);
    EXPECT_NE(reason.find("dtype = fp16: this row has bf16"), reason.npos) << reason;
  }
  Device old = every;
  old.avx512_bf16 = old.amx_bf16 = false;
  EXPECT_NE(refusal("fwd sq8 sk8 d64 bf16", "cpu_amx_forward", old).find("AMX"), std::string::npos);
  EXPECT_NE(refusal("fwd sq8 sk8 d64 bf16", "cpu_avx512_bf16_forward", old).find("AVX512_BF16"), std::string::npos);
  EXPECT_EQ(plan(parse_problem("fwd sq8 sk8 d64 bf16"), every).kernel(), "cpu_amx_forward");
  every.amx_bf16 = false;
  EXPECT_EQ(plan(parse_problem("fwd sq8 sk8 d64 bf16"), every).kernel(), "cpu_avx512_bf16_forward");
}

TEST(Decline, TheFastestTargetIsAskedFirst) {
  if (!cpu().avx2) GTEST_SKIP() << "this machine has no AVX2";
  const std::string target = cpu().avx512 ? "cpu_avx512_" : "cpu_avx2_";
  EXPECT_EQ(plan(parse_problem("fwd sq8 sk8 d64 fp32"), cpu(1)).kernel(), target + "forward");
  EXPECT_EQ(plan(parse_problem("bwd sq8 sk8 d64 fp32"), cpu(1)).kernel(), target + "backward");
}

TEST(Decline, APlanSaysHowItRuns) {
  const Plan forward = plan(parse_problem("fwd b2 hq4 hk4 sq200 sk200 d64 bf16"), cpu(3), "cpu_scalar_forward");
  const std::string tile = "96x96 fp32 scalar, 3x4 kernel, L2 ";
  EXPECT_TRUE(forward.launch_shape().tile.starts_with(tile)) << forward.launch_shape().tile;
  EXPECT_EQ(forward.launch_shape().threads, 3);
  EXPECT_EQ(forward.launch_shape().grid, 2 * 4 * 3);
}

}  // namespace
}  // namespace fattn
