// SPDX-License-Identifier: Apache-2.0
#include "standard_attention.hpp"

#include <gtest/gtest.h>

#include "verify/check.hpp"

namespace fattn::tool {
namespace {

TEST(StandardAttention, AgreesWithTheOracle) {
  for (const char* text :
       {"fwd b2 hq4 hk2 sq100 sk70 d24 dv40 fp32", "fwd b1 hq2 hk2 sq64 sk129 d16 bf16 causal",
        "fwd b1 hq3 hk1 sq130 sk50 d8 fp32 causal window=20,0 scale=-0.3", "fwd b1 hq1 hk1 sq7 sk0 d8 fp32"}) {
    verify::CaseData inputs(parse_problem(text), cpu());
    // Keys that no query sees are NaN in test data; three plain operators would spread them.
    for (const char* name : {"k", "v"}) {
      std::vector<double> values = inputs.tensor(name).values();
      for (double& value : values) value = value == value ? value : 0;
      inputs.tensor(name).set_values(values);
    }
    ASSERT_TRUE(StandardAttention::serves(inputs.problem()));
    StandardAttention attention(inputs, 2);
    attention.run();
    const std::vector<double> exact = verify::oracle(inputs).tensor("o").values();
    ASSERT_EQ(attention.o().size(), exact.size());
    for (std::size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(attention.o()[i], exact[i], 2e-6) << text << ' ' << i;
  }
}

TEST(StandardAttention, DoesNotServeWhatItDoesNotCompute) {
  for (const char* text : {"bwd b1 hq1 hk1 sq8 sk8 d8 fp32", "fwd b1 hq1 hk1 sq8 sk8 d8 fp32 softcap=5",
                           "fwd b2 hq1 hk1 sq8 sk8 d8 fp32 tq12 tk12", "fwd b1 hq1 hk1 sq8 sk8 d8 fp32 sinks"}) {
    EXPECT_FALSE(StandardAttention::serves(parse_problem(text))) << text;
  }
}

}  // namespace
}  // namespace fattn::tool
