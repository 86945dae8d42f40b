// SPDX-License-Identifier: Apache-2.0
// The yardstick is itself pinned: computed here by hand for one query, rounding by rounding.
#include <gtest/gtest.h>

#include "algebra/rounding.hpp"
#include "reference/support.hpp"

namespace fattn {
namespace {

TEST(Naive, RoundsWhatTheContractSays) {
  verify::CaseData data(verify::parse_case("fwd b1 hq1 hk1 sq1 sk3 d1 bf16 scale=1 lse").problem, cpu(1));
  data.tensor("q").set_values({1});
  data.tensor("k").set_values({0.5, -1, 0.25});
  data.tensor("v").set_values({1, 3, -2});
  const float s[3] = {0.5f, -1.0f, 0.25f}, v[3] = {1, 3, -2};
  float sum = 0, o = 0, e[3];
  for (int j = 0; j < 3; ++j) sum += e[j] = std::exp(s[j] - 0.5f);
  for (int j = 0; j < 3; ++j) o += float_from_bf16(bf16_from_float(e[j] / sum)) * v[j];
  const verify::CaseOutputs outputs = run_row(data, "reference_forward_naive");
  EXPECT_EQ(outputs.tensor("o").values()[0], static_cast<double>(float_from_bf16(bf16_from_float(o))));
  EXPECT_EQ(outputs.tensor("lse").values()[0], static_cast<double>(0.5f + std::log(sum)));
}

// It must err like a 16-bit computation: neither exact nor worse than a few units.
TEST(Naive, ErrsAsMuchAsItsDType) {
  for (const char* dtype : {"bf16", "fp16"}) {
    for (const char* pass : {"fwd", "bwd"}) {
      const verify::Case one =
          verify::parse_case(std::string(pass) + " b1 hq2 hk1 sq64 sk96 d32 causal " + std::string(dtype));
      const verify::CheckResult result = verify::check(
          one.problem, cpu(1), std::string(pass) == "fwd" ? "reference_forward_naive" : "reference_backward_naive");
      EXPECT_TRUE(result.pass) << result.table();
      for (const verify::OutputCheck& output : result.outputs) {
        const double unit = verify::rounding_unit(one.problem.dtype);
        EXPECT_GT(output.error.relative_rms(), 0.2 * unit) << result.table();
        EXPECT_LT(output.error.relative_rms(), 2 * unit) << result.table();
      }
    }
  }
}

}  // namespace
}  // namespace fattn
