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

}  // namespace fattn::gpu::tile
