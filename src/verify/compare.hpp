// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "fattn/problem.hpp"
#include "verify/tensor.hpp"

namespace fattn::verify {

// How far a tensor is from the oracle's.
struct Distance {
  double max = 0;  // largest absolute error over the elements that are finite in both
  double rms = 0;  // root of the mean square error over the same
  double reference_rms = 0;
  double reference_max = 0;    // largest finite magnitude of the oracle
  std::int64_t elements = 0;   // that count above
  std::int64_t rows = 0;       // of the tensor
  std::int64_t misplaced = 0;  // elements that are NaN, inf or -inf on one side only
  std::int64_t first_misplaced = -1;

  double relative_rms() const { return reference_rms > 0 ? rms / reference_rms : rms; }
};
Distance distance(const Tensor& result, const Tensor& oracle);

// The largest relative error of one rounding to nearest.
double rounding_unit(DType dtype);

// RMS and largest magnitude of what is added up to give an output: at least the output's own, more where sums cancel.
struct Magnitude {
  double rms = 0;
  double max = 0;
};

// What a row may be off by in one output of n rows. r is the oracle's RMS value, c the magnitude of its terms, u the
// rounding unit of the inputs or of the output, the larger, v four units of fp32, and for 16-bit inputs a unit more for
// every 64 of head_dim_v, two where one row decides (what tensor cores cut off: docs/numerics.md):
//   max error <= 2 * naive's + max(u * c.rms, v * c.max)        RMS error <= 2 * naive's + max(u * r / sqrt(n), v *
//   c.rms)
// u of the inputs also where the output is fp32: gradients come from P and dS rounded to the inputs' dtype. The floors
// are for what the naive may get right by luck: tensors so small that one number decides, hence the root; and sums that
// cancel, which are as coarse as fp32 is for their terms. The yardstick of small problems is the largest of several
// draws for the same reason.
// lse and max_logit are logarithms: both floors are v times the largest magnitude, at least 1, which leaves room for
// exp2-based arithmetic that scales by log2(e) and back; and for 16-bit inputs a unit more for every 64 of head_dim,
// because tensor cores cut off where they add.
struct Bound {
  double max = 0;
  double rms = 0;
};
Bound bound(const std::string& output, const Problem& problem, DType stored, const Distance& naive,
            const Magnitude& terms);

// Both errors within the bound, and nothing misplaced.
bool passes(const Distance& distance, const Bound& bound);

}  // namespace fattn::verify
