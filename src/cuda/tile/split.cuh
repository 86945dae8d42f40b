// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/ptx/arithmetic.cuh"

// Values kept as what a product needs, rounded to 16 bits, and eight bits of what rounding lost: 24 bits instead of 32
// for values that are used both rounded and whole. Four values take two registers and one more.
namespace fattn::gpu::tile {

template <class Element>
struct SplitFour;

// The rest is the next eight bits of the value plus half a unit, so that cutting off is rounding: of both parts
// together, less that half, comes the value. (Where the value lies half way between two roundings, the even one is
// taken, and the parts may be a unit off.)
template <>
struct SplitFour<ptx::Bf16> {
  static constexpr int kShift = 0;
  static constexpr std::uint32_t kHalf = 0x8000u;

  __device__ __forceinline__ static void split(std::uint32_t (&rounded)[2], std::uint32_t& rest,
                                               const float (&values)[4]) {
    rounded[0] = ptx::pack<ptx::Bf16>(values[0], values[1]);
    rounded[1] = ptx::pack<ptx::Bf16>(values[2], values[3]);
    std::uint32_t bits[4];
#pragma unroll
    for (int i = 0; i < 4; i++) bits[i] = __float_as_uint(values[i]);
    // Half a unit more flips the uppermost of the eight.
    rest =
        __byte_perm(__byte_perm(bits[0], bits[1], 0x0051), __byte_perm(bits[2], bits[3], 0x0051), 0x5410) ^ 0x80808080u;
  }

  // The lowest byte may be anything.
  __device__ __forceinline__ static void join(float (&values)[4], const std::uint32_t (&rounded)[2],
                                              std::uint32_t rest) {
    values[0] = __uint_as_float(__byte_perm(rounded[0], rest, 0x1044) - kHalf);
    values[1] = __uint_as_float(__byte_perm(rounded[0], rest, 0x3255) - kHalf);
    values[2] = __uint_as_float(__byte_perm(rounded[1], rest, 0x1066) - kHalf);
    values[3] = __uint_as_float(__byte_perm(rounded[1], rest, 0x3277) - kHalf);
  }
};

// Values of at most 16 times 2^kShift, kShift powers of two larger than join gives them back, so that rounding keeps
// small ones. The half is added first, so that cutting off rounds; the rest are the bits below the upper half of the
// sum: the uppermost three are known, five are new. Of a sum too small for the rounded part comes 0.
template <>
struct SplitFour<ptx::Fp16> {
  static constexpr int kShift = 12;
  static constexpr int kHalf = 0x1000, kExponent = kShift << 23;

  __device__ __forceinline__ static void split(std::uint32_t (&rounded)[2], std::uint32_t& rest,
                                               const float (&values)[4]) {
    std::uint32_t bits[4];
#pragma unroll
    for (int i = 0; i < 4; i++) bits[i] = min(__float_as_uint(values[i]) + kHalf, 0x7FFFFFFFu);  // NaN stays NaN
    rounded[0] = ptx::pack_cut(__uint_as_float(bits[0]), __uint_as_float(bits[1]));
    rounded[1] = ptx::pack_cut(__uint_as_float(bits[2]), __uint_as_float(bits[3]));
    rest = __byte_perm(__byte_perm(bits[0], bits[1], 0x0051), __byte_perm(bits[2], bits[3], 0x0051), 0x5410);
  }

  __device__ __forceinline__ static void join(float (&values)[4], const std::uint32_t (&rounded)[2],
                                              std::uint32_t rest) {
    float upper[4];
    ptx::unpack<ptx::Fp16>(rounded[0], upper[0], upper[1]);
    ptx::unpack<ptx::Fp16>(rounded[1], upper[2], upper[3]);
    values[0] = without_half(__byte_perm(__float_as_uint(upper[0]), rest, 0x3244));
    values[1] = without_half(__byte_perm(__float_as_uint(upper[1]), rest, 0x3255));
    values[2] = without_half(__byte_perm(__float_as_uint(upper[2]), rest, 0x3266));
    values[3] = without_half(__byte_perm(__float_as_uint(upper[3]), rest, 0x3277));
  }

  __device__ __forceinline__ static float without_half(std::uint32_t bits) {
    return __uint_as_float(static_cast<std::uint32_t>(max(static_cast<int>(bits) - (kHalf + kExponent), 0)));
  }
};

}  // namespace fattn::gpu::tile
