// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/gemm/vector-inl.hpp"

// Operands of products in bf16 with fp32 sums, for instructions that multiply pairs. The left side lies by rows, the
// right side as [depth / 2][kPanel][2]. Rows, columns and depths are padded with zeros to multiples of 32. A target
// adds
//
//   product<into>      c = a b  or  c += a b  for one panel of b, all by rows
//   panel_product<into>  the same, operands as below
//   pairs_of_weights   two vectors of weights, rounded, whose NaN may be lost: their sum has it
//
// which lets `between` do something after each tile instruction if the target has tiles; turns() says how many there
// are.
namespace fattn::host::FATTN_TARGET {

static_assert(kPanel == 32, "a panel is two tiles wide");
inline constexpr int kPairDepth = 32;  // depths are multiples of this
inline constexpr int kPairRow = 2 * kPanel;
static_assert(kPairDepth % (2 * kLanes) == 0);

// Products between whose tile instructions nothing else happens.
struct Nothing {
  static constexpr bool kRegular = false;
  void turn() {}
  void go() {}
};

inline constexpr int turns(int rows, int depth) { return rows / 16 * (depth / kPairDepth) * 2; }

// How operands of products lie where a target has whole tiles (kWholeTiles), 16 rows of 64 bytes one after the other: a
// left side is [rows / 16][depth / 32][16][32], a right side [2][depth / 2][16][2], sums [2][rows][16]. Elsewhere a
// left side is rows, a right side [depth / 2][kPanel][2], and sums are rows.
inline constexpr int kHalfPanel = 16;
inline constexpr int kRowStep = kWholeTiles ? kHalfPanel : kPanel;  // rows of right sides and sums, in 32 bits
inline constexpr std::int64_t left_at(std::int64_t depth, int row, int column) {
  if (!kWholeTiles) return row * depth + column;
  constexpr int kRows = 16;
  return row / kRows * kRows * depth + column / kPairDepth * kRows * kPairDepth + row % kRows * kPairDepth +
         column % kPairDepth;
}
// From the first half of a panel of so many rows to the second; where a lane of a row is. In 32 bits.
inline constexpr std::int64_t half_step(std::int64_t rows) { return kWholeTiles ? rows * kHalfPanel : kHalfPanel; }
inline constexpr std::int64_t lane_at(std::int64_t half, int lane) {
  return lane / kHalfPanel * half + lane % kHalfPanel;
}

// Sums of a product: the first, and the way to the next row and to the second half.
struct Sums {
  float* at;
  std::int64_t row, half;
};

struct PairRows {
  const std::uint16_t* data;
  std::int64_t stride;  // in elements
};

// Rows that will be packed soon: the hardware does not follow rows far apart. Inline at all costs: GCC takes a function
// that only prefetches for one that does nothing.
FATTN_INLINE void fetch_rows(const RowsSource& source, int begin, int end) {
  const int bytes = source.columns * static_cast<int>(sizeof(std::uint16_t));
  const auto* from = static_cast<const std::uint16_t*>(source.data) + begin * source.row_stride;
  for (int row = begin; row < min_of(end, source.rows); ++row, from += source.row_stride) {
    for (int at = 0; at < bytes; at += 64) __builtin_prefetch(reinterpret_cast<const char*>(from) + at, 0, 2);
  }
}

// The source's rows as rows x columns, zeros where it has none or leaves one out.
inline PairRows copy_rows(const RowsSource& source, int rows, int columns, std::uint16_t* copy) {
  const auto* from = static_cast<const std::uint16_t*>(source.data);
  const std::size_t row_bytes = static_cast<std::size_t>(columns) * sizeof(std::uint16_t);
  const std::size_t used = static_cast<std::size_t>(source.columns) * sizeof(std::uint16_t);
  for (int row = 0; row < rows; ++row, from += source.row_stride) {
    std::uint16_t* const to = copy + std::int64_t{row} * columns;
    if (row >= source.rows || (source.keep != nullptr && !source.keep[row])) {
      __builtin_memset(to, 0, row_bytes);
      continue;
    }
    if (source.column_stride == 1) {
      __builtin_memcpy(to, from, used);
    } else {
      for (int column = 0; column < source.columns; ++column) to[column] = *from;
    }
    if (used < row_bytes) __builtin_memset(to + source.columns, 0, row_bytes - used);
  }
  return {copy, columns};
}

// The same where they lie, if nothing is missing; for reading once.
inline PairRows padded_rows(const RowsSource& source, int rows, int columns, std::uint16_t* copy) {
  const bool whole = source.keep == nullptr && source.rows == rows && source.columns == columns;
  if (!whole || source.column_stride != 1) return copy_rows(source, rows, columns, copy);
  return {static_cast<const std::uint16_t*>(source.data), source.row_stride};
}

// One panel of kPanel rows becomes the right side of a product over its columns.
inline void pack_pairs_of_columns(const PairRows& rows, int columns, std::uint16_t* out, int row_step = kPanel,
                                  std::int64_t half = kHalfPanel) {
  for (int column = 0; column < columns; column += 2 * kLanes) {
    for (int j = 0; j < kPanel; j += kLanes) {
      Vec block[kLanes];
      FATTN_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) block[i] = load_bits(rows.data + (j + i) * rows.stride + column);
      transpose(block);
      FATTN_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) store_bits(out + 2 * ((column / 2 + i) * row_step + lane_at(half, j)), block[i]);
    }
  }
}

// `count` rows become right sides of products over the rows, one for each panel of columns, `step` apart.
inline void pack_pairs_of_rows(const PairRows& rows, int count, int columns, std::int64_t step, std::uint16_t* out,
                               int row_step = kPanel, std::int64_t half = kHalfPanel) {
  for (int row = 0; row < count; row += 2) {
    const std::uint16_t* const first = rows.data + row * rows.stride;
    for (int column = 0; column < columns; column += kPanel) {
      std::uint16_t* const to = out + column / kPanel * step + row * row_step;
      FATTN_UNROLL(2)
      for (int j = 0; j < kPanel; j += kLanes) {
        store_bits(to + 2 * lane_at(half, j), pairs_of(first + column + j, first + rows.stride + column + j));
      }
    }
  }
}

// out[column * stride + row]: the left side of a product over the rows.
inline void pack_columns(const PairRows& rows, int count, int columns, std::uint16_t* out, std::int64_t stride) {
  for (int row = 0; row < count; row += 2 * kLanes) {
    for (int column = 0; column < columns; column += kLanes) {
      Vec block[kLanes];
      FATTN_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) {
        const std::uint16_t* const first = rows.data + (row + 2 * i) * rows.stride + column;
        block[i] = pairs_of(first, first + rows.stride);
      }
      transpose(block);
      FATTN_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) store_bits(out + (column + i) * stride + row, block[i]);
    }
  }
}

// Rows as the left side of panel_product() over the columns, and over the rows.
inline void pack_left(const PairRows& rows, int count, int columns, std::uint16_t* out, std::int64_t depth) {
  for (int row = 0; row < count; ++row) {
    for (int column = 0; column < columns; column += kPairDepth) {
      __builtin_memcpy(out + left_at(depth, row, column), rows.data + row * rows.stride + column,
                       kPairDepth * sizeof(std::uint16_t));
    }
  }
}
inline void pack_left_of_columns(const PairRows& rows, int count, int columns, std::uint16_t* out, std::int64_t depth) {
  for (int row = 0; row < count; row += 2 * kLanes) {
    for (int column = 0; column < columns; column += kLanes) {
      Vec block[kLanes];
      FATTN_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) {
        const std::uint16_t* const first = rows.data + (row + 2 * i) * rows.stride + column;
        block[i] = pairs_of(first, first + rows.stride);
      }
      transpose(block);
      FATTN_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) store_bits(out + left_at(depth, column + i, row), block[i]);
    }
  }
}

// rows x columns of fp32, rounded, as left sides of products over the columns and over the rows.
inline void round_rows(const float* values, std::int64_t stride, int rows, int columns, std::uint16_t* out) {
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; column += kLanes) {
      Format<DType::bf16>::store(out + row * stride + column, load(values + row * stride + column));
    }
  }
}
inline void round_columns(const float* values, std::int64_t stride, int rows, int columns, std::uint16_t* out,
                          std::int64_t out_stride) {
  for (int row = 0; row < rows; row += 2 * kLanes) {
    for (int column = 0; column < columns; column += kLanes) {
      Vec block[kLanes];
      FATTN_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) {
        const float* const from = values + (row + 2 * i) * stride + column;
        block[i] = pairs_of(load(from), load(from + stride));
      }
      transpose(block);
      FATTN_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) store_bits(out + (column + i) * out_stride + row, block[i]);
    }
  }
}

}  // namespace fattn::host::FATTN_TARGET
