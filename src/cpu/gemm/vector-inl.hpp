// SPDX-License-Identifier: Apache-2.0
#pragma once

// The micro-kernels of a vector target, for the blocking that gemm/<target>.hpp names: a block of kBlockRows x
// kPanel results stays in registers while the sum runs. Every target offers
//
//   pack_panels      rows -> [columns / kPanel][capacity][kPanel]   for either side of a product
//   pack_transposed  rows -> [rows / kPanel][columns][kPanel]       for the right side
//   qk               C  = A B  or  C += A B, A by rows
//   pv               C += A^T B  or  C = C * factor + A^T B, A by columns
//
// Packing widens to fp32, pads with zeros to whole panels and blocks, and leaves out rows that must not be read.
namespace fattn::host::FATTN_TARGET {

inline constexpr int kPanelVecs = kPanel / kLanes;
static_assert(kPanel % kLanes == 0, "a panel is made of whole vectors");

inline constexpr int round_up(int n, int to) { return (n + to - 1) / to * to; }

// The first `count` of the kLanes elements from p on, zeros after them.
template <DType dtype>
inline Vec load_some(const typename Format<dtype>::Element* p, int count) {
  float lanes[kLanes] = {};
  for (int i = 0; i < count; ++i) lanes[i] = Format<dtype>::widen(p[i]);
  return load(lanes);
}

template <DType dtype>
inline Vec load_columns(const RowsSource& source, int row, int column) {
  if (row >= source.rows || (source.keep != nullptr && !source.keep[row])) return zero();
  const auto* p = static_cast<const typename Format<dtype>::Element*>(source.data) + row * source.row_stride;
  if (source.column_stride == 0) return splat(Format<dtype>::widen(*p));
  const int left = source.columns - column;
  return left >= kLanes ? Format<dtype>::load(p + column) : load_some<dtype>(p + column, left);
}

template <DType dtype>
void pack_panels_of(const RowsSource& source, int capacity, float* out) {
  const int rows = round_up(source.rows, kBlockRows);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < source.columns; column += kPanel) {
      float* const to = out + (std::int64_t{column} / kPanel * capacity + row) * kPanel;
      FATTN_UNROLL(8)
      for (int j = 0; j < kPanelVecs; ++j) {
        const int at = column + j * kLanes;
        store(to + j * kLanes, at < source.columns ? load_columns<dtype>(source, row, at) : zero());
      }
    }
  }
}

template <DType dtype>
void pack_transposed_of(const RowsSource& source, float* out) {
  for (int panel = 0; panel < source.rows; panel += kPanel, out += std::int64_t{source.columns} * kPanel) {
    for (int column = 0; column < source.columns; column += kLanes) {
      const int left = source.columns - column;
      for (int j = 0; j < kPanelVecs; ++j) {
        Vec block[kLanes];
        FATTN_UNROLL(16)
        for (int i = 0; i < kLanes; ++i) block[i] = load_columns<dtype>(source, panel + j * kLanes + i, column);
        transpose(block);
        float* const to = out + std::int64_t{column} * kPanel + j * kLanes;
        FATTN_UNROLL(16)
        for (int i = 0; i < kLanes; ++i) {
          if (i < left) store(to + i * kPanel, block[i]);
        }
      }
    }
  }
}

// out: room for `capacity` rows, a multiple of kBlockRows, in each panel.
inline void pack_panels(const RowsSource& source, int capacity, float* out) {
  switch (source.dtype) {
    case DType::bf16: return pack_panels_of<DType::bf16>(source, capacity, out);
    case DType::fp16: return pack_panels_of<DType::fp16>(source, capacity, out);
    default: return pack_panels_of<DType::fp32>(source, capacity, out);
  }
}

inline void pack_transposed(const RowsSource& source, float* out) {
  switch (source.dtype) {
    case DType::bf16: return pack_transposed_of<DType::bf16>(source, out);
    case DType::fp16: return pack_transposed_of<DType::fp16>(source, out);
    default: return pack_transposed_of<DType::fp32>(source, out);
  }
}

struct Accumulators {
  Vec at[kBlockRows][kPanelVecs];

  void clear() {
    FATTN_UNROLL(32)
    for (int i = 0; i < kBlockRows; ++i) {
      FATTN_UNROLL(8)
      for (int j = 0; j < kPanelVecs; ++j) at[i][j] = zero();
    }
  }
  // One step of the sum: the outer product of kBlockRows elements, `stride` apart, and a row of the panel.
  void add(const float* a, std::int64_t stride, const float* b) {
    Vec row[kPanelVecs];
    FATTN_UNROLL(8)
    for (int j = 0; j < kPanelVecs; ++j) row[j] = load(b + j * kLanes);
    FATTN_UNROLL(32)
    for (int i = 0; i < kBlockRows; ++i) {
      const Vec x = splat_from(a + i * stride);
      FATTN_UNROLL(8)
      for (int j = 0; j < kPanelVecs; ++j) at[i][j] = fma(x, row[j], at[i][j]);
    }
  }
};

// The left side of a product by rows: element (m, k) at data[m * row + (k / kPanel) * panel + k % kPanel].
struct RowsOperand {
  const float* data;
  std::int64_t row;
  std::int64_t panel;
};

enum class Into { overwrite, add };

// Elements that one accumulator sums before it goes to memory. A sum of shorter sums has a smaller rounding error: with
// chains of 128 one fp32 problem in 25 had more than twice the naive's error, with 16 none, at the same speed.
inline constexpr int kDepth = 16;
inline constexpr int kSteps = kPanel < kDepth ? kPanel : kDepth;  // unrolled
static_assert(kDepth % kSteps == 0 && kPanel % kSteps == 0, "steps stay within one panel of the left side");

template <Into into>
inline void write_block(const Accumulators& block, float* c, std::int64_t c_stride) {
  FATTN_UNROLL(32)
  for (int i = 0; i < kBlockRows; ++i) {
    FATTN_UNROLL(8)
    for (int j = 0; j < kPanelVecs; ++j) {
      float* const to = c + i * c_stride + j * kLanes;
      store(to, into == Into::add ? load(to) + block.at[i][j] : block.at[i][j]);
    }
  }
}

// c[m][n] (+)= sum over k of a(m, k) b[k][n], n in one panel; c has room for whole blocks of rows.
template <Into into>
inline void qk(const RowsOperand& a, int rows, const float* b, int depth, float* c, std::int64_t c_stride) {
  for (int m = 0; m < rows; m += kBlockRows, c += kBlockRows * c_stride) {
    const float* right = b;
    for (int k = 0; k < depth; k += kDepth) {
      Accumulators block;
      block.clear();
      const int end = min_of(depth, k + kDepth);
      for (int at = k; at < end; at += kSteps, right += kSteps * kPanel) {
        const float* const left = a.data + m * a.row + at / kPanel * a.panel + at % kPanel;
        if (at + kSteps <= end) {
          FATTN_UNROLL(16)
          for (int step = 0; step < kSteps; ++step) block.add(left + step, a.row, right + step * kPanel);
        } else {
          for (int step = 0; at + step < end; ++step) block.add(left + step, a.row, right + step * kPanel);
        }
      }
      if (into == Into::overwrite && k == 0) {
        write_block<Into::overwrite>(block, c, c_stride);
      } else {
        write_block<Into::add>(block, c, c_stride);
      }
    }
  }
}

// c[m][n] = c[m][n] * factor[m] + sum over k of a[k * a_stride + m] b[k][n], n in one panel; factor null: 1.
inline void pv(const float* a, std::int64_t a_stride, int rows, const float* b, int depth, const float* factor,
               float* c, std::int64_t c_stride) {
  for (int m = 0; m < rows; m += kBlockRows) {
    Accumulators block;
    block.clear();
    FATTN_UNROLL(4)
    for (int k = 0; k < depth; ++k) block.add(a + k * a_stride + m, 1, b + k * kPanel);
    FATTN_UNROLL(32)
    for (int i = 0; i < kBlockRows; ++i) {
      const Vec scale = splat(factor == nullptr ? 1.0f : factor[m + i]);
      FATTN_UNROLL(8)
      for (int j = 0; j < kPanelVecs; ++j) {
        float* const to = c + (m + i) * c_stride + j * kLanes;
        store(to, fma(load(to), scale, block.at[i][j]));
      }
    }
  }
}

}  // namespace fattn::host::FATTN_TARGET
