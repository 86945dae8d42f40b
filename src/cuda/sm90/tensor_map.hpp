// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "fattn/tensor.hpp"

namespace fattn::gpu::sm90 {

inline constexpr int kSliceColumns = 64;  // of a tile in shared memory (tile/swizzle.cuh)

// A tensor [batch, rows, heads, columns] of 16-bit elements as the copy engine sees it.
struct TensorShape {
  std::int64_t batch;
  std::int64_t rows;
  std::int64_t heads;
  std::int64_t columns;
  Strides strides;
};

// Empty, or why the copy engine does not take the strides. `name` is the operand's.
std::string decline_strides(std::string_view name, const TensorShape& tensor);

// Looks the driver's functions up; throws Error(device_error) where there is no driver. Later calls cost nothing.
void load_encoder();

// Maps are made at plan time, of this address, and a run points copies of them at its buffers: a fifth of the time.
inline const void* const kNoData = reinterpret_cast<const void*>(std::uintptr_t{1} << 40);
void point_at(CUtensorMap& map, const void* data);

// A map of dimensions (column, head in a group, row, group of heads, batch) whose boxes are 64 columns of all heads of
// one group in `box_rows` / `group` rows, swizzled: `box_rows` rows in shared memory, a row's heads one after the
// other. `data` is a multiple of 16, `group` divides the heads and `box_rows`.
CUtensorMap encode(const void* data, DType dtype, const TensorShape& tensor, int box_rows, int group = 1);

// A map whose boxes of `box_rows` rows can end after any of them: others are read as zeros and not written. Dimensions
// (column, row of the box, row, head, batch), where the second and the third are steps of the same length: the box of
// `valid` rows from row r is at box_rows - valid and r + valid. The tensor is said to begin box_rows earlier, so that
// the sum of both is never less than box_rows.
CUtensorMap encode_ragged(const void* data, DType dtype, const TensorShape& tensor, int box_rows);

// The same of one batch, where the rows of a box are all heads of one group in `box_rows` / `group` positions.
// Dimensions (column, head in a group, position in the box, position, group of heads). `data` is where the map begins,
// ragged_begin() bytes from the tensor.
CUtensorMap encode_ragged(const void* data, DType dtype, const TensorShape& tensor, int box_rows, int group);
std::int64_t ragged_begin(const TensorShape& tensor, int box_rows, int group);

// A map of dimensions (column in a slice, row, slice of 64 columns, head, batch) whose boxes are `box_slices` slices of
// `box_rows` rows: the same bytes in shared memory with one copy. `tensor.columns` is a multiple of 64.
CUtensorMap encode_slices(const void* data, DType dtype, const TensorShape& tensor, int box_rows, int box_slices);

}  // namespace fattn::gpu::sm90
