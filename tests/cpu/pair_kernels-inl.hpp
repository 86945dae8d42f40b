// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/math-inl.hpp"

namespace fattn::host::FATTN_TARGET {

inline void product_any(bool add, const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                        std::int64_t b_stride, int depth, float* c, std::int64_t c_stride) {
  [[maybe_unused]] const Tiles tiles;
  Nothing nothing;
  return add ? product<Into::add>(a, a_stride, rows, b, b_stride, depth, c, c_stride, nothing)
             : product<Into::overwrite>(a, a_stride, rows, b, b_stride, depth, c, c_stride, nothing);
}
inline void copy_rows_any(const RowsSource& source, int rows, int columns, std::uint16_t* out) {
  copy_rows(source, rows, columns, out);
}
inline void columns_any(const std::uint16_t* rows, std::int64_t stride, int columns, std::uint16_t* out) {
  pack_pairs_of_columns({rows, stride}, columns, out);
}
inline void rows_any(const std::uint16_t* rows, std::int64_t stride, int count, int columns, std::int64_t step,
                     std::uint16_t* out) {
  pack_pairs_of_rows({rows, stride}, count, columns, step, out);
}
inline void transposed_any(const std::uint16_t* rows, std::int64_t stride, int count, int columns, std::uint16_t* out,
                           std::int64_t out_stride) {
  pack_columns({rows, stride}, count, columns, out, out_stride);
}

inline void weights_any(const float* first, const float* second, int count, std::uint16_t* pairs) {
  for (int i = 0; i < count; i += kLanes)
    store_bits(pairs + 2 * i, pairs_of_weights(load(first + i), load(second + i)));
}

inline void exp2_any(float* values, int count) {
  for (int i = 0; i < count; i += kLanes) store(values + i, exp2_of_weight(load(values + i)));
}

inline constexpr PairKernels pair_kernels(const char* name) {
  return {name,           kBlockRows, product_any,   copy_rows_any, columns_any, rows_any,
          transposed_any, round_rows, round_columns, weights_any,   exp2_any};
}

}  // namespace fattn::host::FATTN_TARGET
