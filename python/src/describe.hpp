// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "request.hpp"

namespace fattn::python {

// One array as Python describes it: where it lies, its shape and its strides in elements.
struct Array {
  const char* name;
  std::uintptr_t address = 0;
  int rank = 0;
  std::array<std::int64_t, 4> shape = {};
  std::array<std::int64_t, 4> stride = {};
};

// As Python prints a shape.
std::string shape_text(const std::int64_t* extents, int rank);

// Strides of an empty array say nothing (NumPy has zeros there); they become those of a contiguous one.
void settle_strides(Array& array);

// Throws Error(invalid_argument) for more than four dimensions.
Array read_array(const char* name, std::uintptr_t address, nanobind::handle shape, nanobind::handle stride);

// Shapes, strides and alignment of a problem from its arrays, [batch, seqlen, heads, head_dim] or packed
// [total, heads, head_dim]. `batch` and `longest_*` are of packed sequences.
struct Lengths {
  std::int64_t batch = 0;
  std::int64_t longest_q = 0;
  std::int64_t longest_k = 0;
};
void describe(Problem& problem, const Array& q, const Array& k, const Array& v, const Lengths& lengths);
// The gradient of o, whose shape is that of o.
void describe_dout(Problem& problem, const Array& dout);
// A bias of any rank up to 4, aligned to the right with [batch, heads_q, seqlen_q, seqlen_k].
Bias describe_bias(const Problem& problem, const Array& bias, DType dtype);

}  // namespace fattn::python
