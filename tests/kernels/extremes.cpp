// SPDX-License-Identifier: Apache-2.0
// Data at the edges of what floats hold, on every row: NaN is passed on and never taken for a missing key.
#include "kernels/extremes.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace fattn {
namespace {

// One query and one key of NaN. Few queries, queries and keys in parts, masks, scores that are modified or not.
TEST_F(Extremes, NaNIsPassedOn) {
  for (const char* line :
       {"fwd b1 hq2 hk1 sq5 sk70 d16 bf16 lse", "fwd b1 hq2 hk1 sq5 sk70 d16 fp32 sinks lse max_logit",
        "fwd b1 hq2 hk1 sq5 sk2100 d16 bf16 lse max_logit", "fwd b1 hq1 hk1 sq20 sk2100 d8 fp16 lse",
        "fwd b1 hq2 hk2 sq130 sk130 d16 bf16 causal lse max_logit",
        "fwd b1 hq2 hk2 sq130 sk130 d16 fp32 causal softcap=5 bias=k lse max_logit",
        "fwd b1 hq2 hk2 sq100 sk100 d16 bf16 dropout=0.5 alibi lse max_logit"}) {
    for (const char* const poisoned : {"q", "k"}) {
      verify::CaseData data = drawn(line);
      const Problem& p = data.problem();
      const std::int64_t heads = poisoned[0] == 'q' ? p.heads_q : p.heads_kv;
      std::vector<double> values = data.tensor(poisoned).values();
      values[static_cast<std::size_t>(3 * heads * p.head_dim + 1)] = NAN;  // row 3 of head 0
      data.tensor(poisoned).set_values(values);
      for (const std::string& row : extremes_rows(line)) {
        const std::vector<verify::Tensor> outputs = outputs_of(data, row);
        const std::vector<double> o = outputs[0].values(), lse = outputs[1].values();
        for (std::int64_t h = 0; h < p.heads_q; ++h) {
          for (std::int64_t i = 0; i < p.seqlen_q; ++i) {
            const bool hit = poisoned[0] == 'q' ? h == 0 && i == 3 : h / (p.heads_q / p.heads_kv) == 0;
            const bool sees = !p.mask.causal || i >= 3;
            if (poisoned[0] == 'k' && hit && !sees) continue;  // 0 * NaN inside a tile may be either
            EXPECT_EQ(std::isnan(lse[static_cast<std::size_t>(h * p.seqlen_q + i)]), hit) << row << ' ' << line << i;
            EXPECT_EQ(std::isnan(o[static_cast<std::size_t>((i * p.heads_q + h) * p.head_dim)]), hit)
                << row << ' ' << line;
          }
          if (!p.return_max_logit) continue;
          const bool hit = poisoned[0] == 'q' ? h == 0 : h / (p.heads_q / p.heads_kv) == 0;
          EXPECT_EQ(std::isnan(outputs[2].values()[static_cast<std::size_t>(h)]), hit) << row << ' ' << line;
        }
      }
    }
  }
}

}  // namespace
}  // namespace fattn
