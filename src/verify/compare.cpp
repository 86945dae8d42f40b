// SPDX-License-Identifier: Apache-2.0
#include "verify/compare.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace fattn::verify {

Distance distance(const Tensor& result, const Tensor& oracle) {
  Distance d;
  d.rows = oracle.rows();
  std::vector<double> a(static_cast<std::size_t>(oracle.row_elements())), b(a.size());
  double error_squares = 0, squares = 0;
  for (std::int64_t row = 0; row < oracle.rows(); ++row) {
    result.get_row(row, a.data());
    oracle.get_row(row, b.data());
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (!std::isfinite(a[i]) || !std::isfinite(b[i])) {
        const bool same = a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]));
        if (!same && d.misplaced++ == 0) d.first_misplaced = row * oracle.row_elements() + static_cast<std::int64_t>(i);
        continue;
      }
      const double error = std::fabs(a[i] - b[i]);
      d.max = std::max(d.max, error);
      d.reference_max = std::max(d.reference_max, std::fabs(b[i]));
      error_squares += error * error;
      squares += b[i] * b[i];
      ++d.elements;
    }
  }
  if (d.elements > 0) {
    d.rms = std::sqrt(error_squares / static_cast<double>(d.elements));
    d.reference_rms = std::sqrt(squares / static_cast<double>(d.elements));
  }
  return d;
}

double rounding_unit(DType dtype) {
  switch (dtype) {
    case DType::fp64: return 0x1p-53;
    case DType::fp32: return 0x1p-24;
    case DType::fp16: return 0x1p-11;
    case DType::bf16: return 0x1p-8;
    case DType::e4m3: return 0x1p-4;
  }
  return 0;
}

Bound bound(const std::string& output, const Problem& problem, DType stored, const Distance& naive,
            const Magnitude& terms) {
  const DType inputs = problem.dtype;
  const bool tensor_cores = inputs == DType::bf16 || inputs == DType::fp16;
  if (output == "lse" || output == "max_logit") {
    const double units = 4 + (tensor_cores ? static_cast<double>(problem.head_dim) / 64 : 0);
    const double floor = units * rounding_unit(DType::fp32) * std::max(1.0, naive.reference_max);
    return {2 * naive.max + floor, 2 * naive.rms + floor};
  }
  // An fp64 row on fp64 inputs has nothing of fp32 but the outputs that are always fp32. Its naive is the oracle
  // itself, which is no more exact than the row: they may differ by the order of their sums.
  const double root = std::sqrt(static_cast<double>(std::max<std::int64_t>(naive.rows, 1)));
  const double cut_off = tensor_cores ? static_cast<double>(head_dim_v(problem)) / 64 : 0;
  const double units = 4 + cut_off * (1 + 1 / root);
  const double coarse = inputs == DType::fp64 && stored == DType::fp64 ? 1024 * rounding_unit(DType::fp64)
                                                                       : units * rounding_unit(DType::fp32);
  const double unit = std::max(rounding_unit(inputs), rounding_unit(stored));
  return {2 * naive.max + std::max(unit * terms.rms, coarse * terms.max),
          2 * naive.rms + std::max(unit * naive.reference_rms / root, coarse * terms.rms)};
}

bool passes(const Distance& d, const Bound& limit) {
  return d.misplaced == 0 && d.max <= limit.max && d.rms <= limit.rms;
}

}  // namespace fattn::verify
