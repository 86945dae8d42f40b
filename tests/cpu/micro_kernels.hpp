// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cpu/rows_source.hpp"

namespace fattn::host {

// A target's vector functions and micro-kernels as plain functions, for tests outside its region.
struct MicroKernels {
  const char* name;
  int lanes;
  int block_rows;
  int panel;
  void (*exp2)(const float* in, float* out, int count);
  void (*tanh)(const float* in, float* out, int count);
  void (*round_as)(DType dtype, const float* in, float* out, int count);
  void (*store_row)(DType dtype, const float* row, float factor, int count, void* out);
  void (*pack_panels)(const RowsSource& source, int capacity, float* out);
  void (*pack_transposed)(const RowsSource& source, float* out);
  void (*qk)(bool add, const float* a, std::int64_t row, std::int64_t panel, int rows, const float* b, int depth,
             float* c, std::int64_t c_stride);
  void (*pv)(const float* a, std::int64_t a_stride, int rows, const float* b, int depth, const float* factor, float* c,
             std::int64_t c_stride);
};

extern const MicroKernels kScalarMicroKernels, kAvx2MicroKernels, kAvx512MicroKernels;

}  // namespace fattn::host
