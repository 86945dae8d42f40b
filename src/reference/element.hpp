// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "algebra/rounding.hpp"
#include "fattn/tensor.hpp"

namespace fattn::reference {

// count elements of `data`, from `offset` on and `stride` apart, as Reals.
template <class Real>
void load(DType dtype, const void* data, std::int64_t offset, std::int64_t stride, std::int64_t count, Real* out) {
  const auto each = [&](auto* typed, auto convert) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<Real>(convert(typed[offset + i * stride]));
  };
  switch (dtype) {
    case DType::fp64: return each(static_cast<const double*>(data), [](double x) { return x; });
    case DType::fp32: return each(static_cast<const float*>(data), [](float x) { return x; });
    case DType::bf16: return each(static_cast<const std::uint16_t*>(data), float_from_bf16);
    case DType::fp16: return each(static_cast<const std::uint16_t*>(data), float_from_fp16);
    case DType::e4m3: return each(static_cast<const std::uint8_t*>(data), float_from_e4m3);
  }
}

// Rounded once, to nearest even, also from double.
template <class Real>
void store(DType dtype, void* data, std::int64_t offset, std::int64_t count, const Real* in) {
  const auto each = [&](auto* typed, auto convert) {
    for (std::int64_t i = 0; i < count; ++i) typed[offset + i] = convert(in[i]);
  };
  switch (dtype) {
    case DType::fp64: return each(static_cast<double*>(data), [](Real x) { return static_cast<double>(x); });
    case DType::fp32: return each(static_cast<float*>(data), [](Real x) { return static_cast<float>(x); });
    case DType::bf16:
      return each(static_cast<std::uint16_t*>(data), [](Real x) { return bf16_from_float(round_to_odd(x)); });
    case DType::fp16:
      return each(static_cast<std::uint16_t*>(data), [](Real x) { return fp16_from_float(round_to_odd(x)); });
    case DType::e4m3:
      return each(static_cast<std::uint8_t*>(data), [](Real x) { return e4m3_from_float(round_to_odd(x)); });
  }
}

// The values rounded to the dtype: what a tensor core would be fed with.
inline void round_to(DType dtype, float* values, std::int64_t count) {
  const auto each = [&](auto there, auto back) {
    for (std::int64_t i = 0; i < count; ++i) values[i] = back(there(values[i]));
  };
  if (dtype == DType::bf16) each(bf16_from_float, float_from_bf16);
  if (dtype == DType::fp16) each(fp16_from_float, float_from_fp16);
  if (dtype == DType::e4m3) each(e4m3_from_float, float_from_e4m3);
}

// Weights in [0, 1] before P V. e4m3 uses its range: they are 2^8 times as large.
inline void round_weights(DType dtype, float* weights, std::int64_t count) {
  const float up = dtype == DType::e4m3 ? 256.0f : 1.0f;
  for (std::int64_t i = 0; i < count; ++i) weights[i] *= up;
  round_to(dtype, weights, count);
  for (std::int64_t i = 0; i < count; ++i) weights[i] /= up;
}

// P and dS of the backward pass. e4m3 has not the range for dS, so bf16 stands in.
inline void round_gradients(DType dtype, float* values, std::int64_t count) {
  round_to(dtype == DType::e4m3 ? DType::bf16 : dtype, values, count);
}

}  // namespace fattn::reference
