// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "fattn/tensor.hpp"

namespace fattn::gpu::sm90 {

// A tensor [batch, rows, heads, columns] of 16-bit elements as the copy engine sees it.
struct TensorShape {
  std::int64_t batch;
  std::int64_t rows;
  std::int64_t heads;
  std::int64_t columns;  // a multiple of 64
  Strides strides;
};

// Empty, or why the copy engine does not take the strides. `name` is the operand's.
std::string decline_strides(std::string_view name, const TensorShape& tensor);

// Looks the driver's encoder up; throws Error(device_error) where there is no driver. Later calls cost nothing.
void load_encoder();

// A map of dimensions (64 columns, row, slice of 64 columns, head, batch) whose boxes are `box_rows` rows of all
// columns of one head, swizzled. `data` is a multiple of 16.
CUtensorMap encode(const void* data, DType dtype, const TensorShape& tensor, int box_rows);

}  // namespace fattn::gpu::sm90
