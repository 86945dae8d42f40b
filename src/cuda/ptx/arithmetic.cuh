// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace fattn::gpu::ptx {

// 16-bit element types as tags; values live packed in 32-bit registers.
struct Bf16 {};
struct Fp16 {};

// 2^x; 2^-inf = 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Rounds two values to nearest even; `low` goes to the lower half.
template <class Element>
__device__ __forceinline__ std::uint32_t pack(float low, float high);
template <>
__device__ __forceinline__ std::uint32_t pack<Bf16>(float low, float high) {
  std::uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
template <>
__device__ __forceinline__ std::uint32_t pack<Fp16>(float low, float high) {
  std::uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

// Two values with the further bits cut off; `low` goes to the lower half.
__device__ __forceinline__ std::uint32_t pack_cut(float low, float high) {
  std::uint32_t both;
  asm("cvt.rz.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

// The reverse of pack, exact.
template <class Element>
__device__ __forceinline__ void unpack(std::uint32_t both, float& low, float& high);
template <>
__device__ __forceinline__ void unpack<Bf16>(std::uint32_t both, float& low, float& high) {
  low = __uint_as_float(both << 16);
  high = __uint_as_float(both & 0xFFFF0000u);
}
template <>
__device__ __forceinline__ void unpack<Fp16>(std::uint32_t both, float& low, float& high) {
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
      : "=f"(low), "=f"(high)
      : "r"(both));
}

}  // namespace fattn::gpu::ptx
