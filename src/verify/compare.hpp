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

// What a row may be off by in one output of n rows, r being the RMS magnitude of what is added up to give it:
//   max error <= 2 * naive's + u * r           RMS error <= 2 * naive's + u * r / sqrt(n)
// where u is the rounding unit of the inputs or of the output, the larger: gradients that are stored in fp32 come from
// P and dS rounded to the inputs' dtype; four units for fp32, where the inner products themselves are as coarse as
// that. The floor is for tensors so small, or sums that cancel so far, that the naive may be right by luck (and an
// error in dS is one for the whole row, hence rows and not elements); the yardstick of small problems is the largest of
// several draws for the same reason. lse and max_logit are logarithms: there u is four units of fp32 and r the largest
// magnitude, at least 1, in both: that leaves room for exp2-based arithmetic that scales by log2(e) and back.
struct Bound {
  double max = 0;
  double rms = 0;
};
Bound bound(const std::string& output, DType inputs, DType stored, const Distance& naive, double magnitude);

// Both errors within the bound, and nothing misplaced.
bool passes(const Distance& distance, const Bound& bound);

}  // namespace fattn::verify
