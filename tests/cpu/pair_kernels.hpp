// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cpu/rows_source.hpp"

namespace fattn::host {

// The functions of a target that multiplies bf16 in pairs, for tests outside its region.
struct PairKernels {
  const char* name;
  int block_rows;
  void (*product)(bool add, const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                  std::int64_t b_stride, int depth, float* c, std::int64_t c_stride);
  void (*panel_product)(bool add, const std::uint16_t* a, bool turned, int rows, const std::uint16_t* b, bool paired,
                        int depth, float* c, std::uint16_t* left, std::uint16_t* right, float* sums);
  void (*copy_rows)(const RowsSource& source, int rows, int columns, std::uint16_t* out);
  void (*pack_pairs_of_columns)(const std::uint16_t* rows, std::int64_t stride, int columns, std::uint16_t* out);
  void (*pack_pairs_of_rows)(const std::uint16_t* rows, std::int64_t stride, int count, int columns, std::int64_t step,
                             std::uint16_t* out);
  void (*pack_columns)(const std::uint16_t* rows, std::int64_t stride, int count, int columns, std::uint16_t* out,
                       std::int64_t out_stride);
  void (*round_rows)(const float* values, std::int64_t stride, int rows, int columns, std::uint16_t* out);
  void (*round_columns)(const float* values, std::int64_t stride, int rows, int columns, std::uint16_t* out,
                        std::int64_t out_stride);
  void (*weights)(const float* first, const float* second, int count, std::uint16_t* pairs);
  void (*exp2_of_weights)(float* values, int count);
};

extern const PairKernels kEmulatedPairKernels, kAvx512PairKernels, kAmxPairKernels;

}  // namespace fattn::host
