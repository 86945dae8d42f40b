// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "fattn/tensor.hpp"

namespace fattn::host {

// Some rows of a matrix in memory, to be packed. A stride of 0 repeats; the column stride is 0 or 1.
struct RowsSource {
  const void* data;  // row 0, column 0
  DType dtype;
  std::int64_t row_stride;  // in elements
  std::int64_t column_stride;
  int rows;
  int columns;
  const bool* keep = nullptr;  // [rows]; rows that are false are packed as zeros, unread. Null: all are kept
};

}  // namespace fattn::host
