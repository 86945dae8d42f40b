// SPDX-License-Identifier: Apache-2.0
// Data at the edges of what floats hold, on every CPU row: NaN is passed on and never taken for a missing key, and
// scores of any finite size leave weights that add up to 1.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cpu/support.hpp"

namespace fattn {
namespace {

std::vector<verify::Tensor> outputs_of(verify::CaseData& data, const std::string& row) {
  data.place();
  verify::CaseOutputs outputs(data.problem(), cpu(2));
  Buffers buffers = data.placed();
  outputs.attach(buffers);
  verify::run_plan(plan(data.problem(), cpu(2), row), buffers);
  outputs.fetch();
  return {outputs.tensors().begin(), outputs.tensors().end()};
}

std::vector<std::string> rows_for(const std::string& line) {
  const std::string pass = line.starts_with("bwd") ? "backward" : "forward";
  std::vector<std::string> rows = {"reference_" + pass + "_fp64", "reference_" + pass + "_fp32"};
  for (const std::string& target : targets(line)) rows.push_back(row_for(target, line));
  return rows;
}

verify::CaseData drawn(const std::string& line) {
  const verify::Case one = verify::parse_case(line);
  return verify::CaseData(one.problem, cpu(2), one.data);
}

// One query and one key of NaN. Few queries, queries and keys in parts, masks, scores that are modified or not.
TEST(Extremes, NaNIsPassedOn) {
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
      for (const std::string& row : rows_for(line)) {
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

// Values of 1: o is the sum of the weights. Masks written as a bias have such numbers, also for all keys of a row.
TEST(Extremes, WeightsOfHugeScoresAddUpToOne) {
  for (const char* line :
       {"fwd b1 hq2 hk1 sq70 sk130 d16 bf16 bias=q lse", "fwd b1 hq2 hk1 sq3 sk130 d16 bf16 bias=q lse",
        "fwd b1 hq1 hk1 sq70 sk130 d16 fp32 bias=q lse", "fwd b1 hq1 hk1 sq70 sk130 d16 fp16 bias=q lse"}) {
    for (const double shift : {-3.4028234e38, -1e30, -1e9, -40000.0, 1e5, 1e20, 3e38}) {
      verify::CaseData data = drawn(line);
      std::vector<double> ones(data.tensor("v").values().size(), 1.0), bias = data.tensor("bias").values();
      for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = i % 3 == 0 ? shift : 0.0;
      data.tensor("v").set_values(ones);
      data.tensor("bias").set_values(bias);
      for (const std::string& row : rows_for(line)) {
        const std::vector<verify::Tensor> outputs = outputs_of(data, row);
        const double unit = verify::rounding_unit(data.problem().dtype);
        for (const double x : outputs[0].values()) ASSERT_NEAR(x, 1.0, 2 * unit + 1e-5) << row << ' ' << line << shift;
        for (const double x : outputs[1].values()) ASSERT_TRUE(std::isfinite(x)) << row << ' ' << line << shift;
      }
    }
  }
}

// Raw scores, not moved by a bias: q . k of 2^40 and beyond.
TEST(Extremes, WeightsOfHugeProductsAddUpToOne) {
  for (const char* line : {"fwd b1 hq2 hk1 sq70 sk330 d16 bf16 lse", "fwd b1 hq2 hk1 sq3 sk130 d16 bf16 causal lse",
                           "fwd b1 hq1 hk1 sq70 sk130 d16 fp32 lse"}) {
    for (const double size : {1e3, 1e6, 1e12, 1e18}) {
      verify::CaseData data = drawn(line);
      for (const char* const name : {"q", "k"}) {
        std::vector<double> values = data.tensor(name).values();
        for (double& x : values) x *= size;
        data.tensor(name).set_values(values);
      }
      data.tensor("v").set_values(std::vector<double>(data.tensor("v").values().size(), 1.0));
      for (const std::string& row : rows_for(line)) {
        const double unit = verify::rounding_unit(data.problem().dtype);
        for (const double x : outputs_of(data, row)[0].values()) ASSERT_NEAR(x, 1.0, 2 * unit + 1e-5) << row << size;
      }
    }
  }
}

// No weight is above 1, so gradients of rows with huge scores are finite and dv is not above the sum of dout: masks
// written as a bias of -1e9 hide whole rows of padding.
TEST(Extremes, GradientsOfHugeScoresAreFinite) {
  for (const char* line : {"bwd b1 hq1 hk1 sq70 sk130 d16 bf16 bias=q", "bwd b1 hq1 hk1 sq70 sk130 d16 fp16 bias=qk",
                           "bwd b1 hq1 hk1 sq70 sk130 d16 fp32 bias=q dbias", "bwd b1 hq1 hk1 sq70 sk130 d16 bf16",
                           "bwd b1 hq1 hk1 sq70 sk130 d16 fp32"}) {
    for (const double shift : {-3.4028234e38, -1e9, -1e6, 1e7, 1e12}) {
      verify::CaseData data = drawn(line);
      const char* const moved = data.problem().score.bias ? "bias" : "q";
      std::vector<double> values = data.tensor(moved).values();
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (moved[0] == 'q') values[i] *= std::min(std::fabs(shift), 1e15);
        if (moved[0] == 'b' && i % 3 == 0) values[i] += shift;
      }
      data.tensor(moved).set_values(values);
      verify::add_forward(data);
      double sum = 0;
      for (const double x : data.tensor("dout").values()) sum += std::fabs(x);
      for (const std::string& row : rows_for(line)) {
        const std::vector<verify::Tensor> outputs = outputs_of(data, row);
        for (const verify::Tensor& tensor : outputs) {
          for (const double x : tensor.values()) ASSERT_TRUE(std::isfinite(x)) << row << ' ' << line << ' ' << shift;
        }
        for (const double x : outputs[2].values()) ASSERT_LE(std::fabs(x), sum) << row << ' ' << line << ' ' << shift;
      }
    }
  }
}

}  // namespace
}  // namespace fattn
