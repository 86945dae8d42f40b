// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "algebra/rounding.hpp"

// The same as src/cuda/ptx/arithmetic.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

struct Bf16 {};
struct Fp16 {};

inline float exp2_approx(float x) { return std::exp2(x); }
inline float reciprocal_approx(float x) { return 1.f / x; }
inline float log2_approx(float x) { return std::log2(x); }

template <class Element>
std::uint32_t pack(float low, float high);
template <>
inline std::uint32_t pack<Bf16>(float low, float high) {
  return bf16_from_float(low) | static_cast<std::uint32_t>(bf16_from_float(high)) << 16;
}
template <>
inline std::uint32_t pack<Fp16>(float low, float high) {
  return fp16_from_float(low) | static_cast<std::uint32_t>(fp16_from_float(high)) << 16;
}

inline std::uint32_t fp16_cut(float value) {
  const std::uint32_t nearest = fp16_from_float(value);
  return std::fabs(float_from_fp16(static_cast<std::uint16_t>(nearest))) > std::fabs(value) ? nearest - 1 : nearest;
}
inline std::uint32_t pack_cut(float low, float high) { return fp16_cut(low) | fp16_cut(high) << 16; }

template <class Element>
void unpack(std::uint32_t both, float& low, float& high);
template <>
inline void unpack<Bf16>(std::uint32_t both, float& low, float& high) {
  low = float_from_bf16(static_cast<std::uint16_t>(both));
  high = float_from_bf16(static_cast<std::uint16_t>(both >> 16));
}
template <>
inline void unpack<Fp16>(std::uint32_t both, float& low, float& high) {
  low = float_from_fp16(static_cast<std::uint16_t>(both));
  high = float_from_fp16(static_cast<std::uint16_t>(both >> 16));
}

}  // namespace fattn::gpu::ptx
