// SPDX-License-Identifier: Apache-2.0
// Scores of any finite size leave weights that add up to 1, on every CPU row. (CUDA rows hold this to 2^30.)
#include <algorithm>
#include <cmath>

#include "cpu/support.hpp"
#include "kernels/extremes.hpp"

namespace fattn {

Device extremes_device() { return cpu(2); }

std::vector<std::string> extremes_rows(const std::string& line) {
  const std::string pass = line.starts_with("bwd") ? "backward" : "forward";
  std::vector<std::string> rows = {"reference_" + pass + "_fp64", "reference_" + pass + "_fp32"};
  for (const std::string& target : targets(line)) rows.push_back(row_for(target, line));
  return rows;
}

std::string extremes_absent() { return {}; }

namespace {

// Values of 1: o is the sum of the weights. Masks written as a bias have such numbers, also for all keys of a row.
TEST_F(Extremes, WeightsOfHugeScoresAddUpToOne) {
  for (const char* line :
       {"fwd b1 hq2 hk1 sq70 sk130 d16 bf16 bias=q lse", "fwd b1 hq2 hk1 sq3 sk130 d16 bf16 bias=q lse",
        "fwd b1 hq1 hk1 sq70 sk130 d16 fp32 bias=q lse", "fwd b1 hq1 hk1 sq70 sk130 d16 fp16 bias=q lse"}) {
    for (const double shift : {-3.4028234e38, -1e30, -1e9, -40000.0, 1e5, 1e20, 3e38}) {
      verify::CaseData data = drawn(line);
      std::vector<double> ones(data.tensor("v").values().size(), 1.0), bias = data.tensor("bias").values();
      for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = i % 3 == 0 ? shift : 0.0;
      data.tensor("v").set_values(ones);
      data.tensor("bias").set_values(bias);
      for (const std::string& row : extremes_rows(line)) {
        const std::vector<verify::Tensor> outputs = outputs_of(data, row);
        const double unit = verify::rounding_unit(data.problem().dtype);
        for (const double x : outputs[0].values()) ASSERT_NEAR(x, 1.0, 2 * unit + 1e-5) << row << ' ' << line << shift;
        for (const double x : outputs[1].values()) ASSERT_TRUE(std::isfinite(x)) << row << ' ' << line << shift;
      }
    }
  }
}

// Raw scores, not moved by a bias: q . k of 2^40 and beyond.
TEST_F(Extremes, WeightsOfHugeProductsAddUpToOne) {
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
      for (const std::string& row : extremes_rows(line)) {
        const double unit = verify::rounding_unit(data.problem().dtype);
        for (const double x : outputs_of(data, row)[0].values()) ASSERT_NEAR(x, 1.0, 2 * unit + 1e-5) << row << size;
      }
    }
  }
}

// No weight is above 1, so gradients of rows with huge scores are finite and dv is not above the sum of dout: masks
// written as a bias of -1e9 hide whole rows of padding.
TEST_F(Extremes, GradientsOfHugeScoresAreFinite) {
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
      for (const std::string& row : extremes_rows(line)) {
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
