// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/math-inl.hpp"

// Scores on vectors: steps 2 and 4 of docs/numerics.md, "Scores", and which lanes of a vector take part.
namespace fattn::host::FATTN_TARGET {

inline constexpr float kInfinity = __builtin_inff();

struct Softcap {
  Vec cap, inverse;
  bool used;

  explicit Softcap(float softcap)
      : cap(splat(softcap)), inverse(splat(softcap > 0 ? 1 / softcap : 0.0f)), used(softcap > 0) {}
  Vec apply(Vec scaled) const { return used ? cap * tanh(scaled * inverse) : scaled; }
  // d apply / d scaled, from the result: 1 - tanh^2.
  Vec derivative(Vec capped) const {
    const Vec t = capped * inverse;
    return used ? (splat(1.0f) - t) * (splat(1.0f) + t) : splat(1.0f);
  }
};

inline Vec alibi(Vec slope, IntVec diagonal, IntVec key) { return slope * to_float(abs(diagonal - key)); }

// first <= index < last
inline MaskVec within(IntVec index, IntVec first, IntVec last) { return (first < index + splat(1)) & (index < last); }

template <DType dtype>
void store_row_as(const float* row, float factor, int count, void* out) {
  auto* const to = static_cast<typename Format<dtype>::Element*>(out);
  int j = 0;
  for (; j + kLanes <= count; j += kLanes) Format<dtype>::store(to + j, load(row + j) * splat(factor));
  for (; j < count; ++j) to[j] = Format<dtype>::narrow(row[j] * factor);
}

// count elements of row * factor, rounded to the dtype.
inline void store_row(DType dtype, const float* row, float factor, int count, void* out) {
  switch (dtype) {
    case DType::bf16: return store_row_as<DType::bf16>(row, factor, count, out);
    case DType::fp16: return store_row_as<DType::fp16>(row, factor, count, out);
    default: return store_row_as<DType::fp32>(row, factor, count, out);
  }
}

}  // namespace fattn::host::FATTN_TARGET
