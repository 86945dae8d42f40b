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

// c = a b^T or c += a b^T of rows: a [rows][depth], or [depth][rows] where `turned`, b [kPanel][depth], by rows too
// where `paired` says that its rows, not its columns, become pairs: then b is [depth][kPanel]. c: [rows][kPanel].
inline void panel_product_any(bool add, const std::uint16_t* a, bool turned, int rows, const std::uint16_t* b,
                              bool paired, int depth, float* c, std::uint16_t* left, std::uint16_t* right,
                              float* sums) {
  [[maybe_unused]] const Tiles tiles;
  Nothing nothing;
  const std::int64_t half = half_step(depth / 2);
  if (turned) {
    pack_left_of_columns({a, rows}, depth, rows, left, depth);
  } else {
    pack_left({a, depth}, rows, depth, left, depth);
  }
  if (paired) {
    pack_pairs_of_rows({b, kPanel}, depth, kPanel, 0, right, kRowStep, half);
  } else {
    pack_pairs_of_columns({b, depth}, depth, right, kRowStep, half);
  }
  const Sums to{sums, kRowStep, half_step(rows)};
  const auto at = [&](int row, int lane) -> float& { return sums[row * to.row + lane_at(to.half, lane)]; };
  for (int i = 0; i < rows * kPanel; ++i) at(i / kPanel, i % kPanel) = c[i];
  if (add) {
    panel_product<Into::add>(left, depth, rows, right, half, depth, to, nothing);
  } else {
    panel_product<Into::overwrite>(left, depth, rows, right, half, depth, to, nothing);
  }
  for (int i = 0; i < rows * kPanel; ++i) c[i] = at(i / kPanel, i % kPanel);
}

inline void weights_any(const float* first, const float* second, int count, std::uint16_t* pairs) {
  for (int i = 0; i < count; i += kLanes)
    store_bits(pairs + 2 * i, pairs_of_weights(load(first + i), load(second + i)));
}

inline void exp2_any(float* values, int count) {
  for (int i = 0; i < count; i += kLanes) store(values + i, exp2_of_weight(load(values + i)));
}

inline constexpr PairKernels pair_kernels(const char* name) {
  return {name,     kBlockRows,     product_any, panel_product_any, copy_rows_any, columns_any,
          rows_any, transposed_any, round_rows,  round_columns,     weights_any,   exp2_any};
}

}  // namespace fattn::host::FATTN_TARGET
