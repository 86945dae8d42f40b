// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/vec/scalar.hpp"

// What bf16 operands need beside the operations of vec/scalar.hpp. A pair is two bf16 in the 32 bits of a lane, the
// first in the lower half; lanes that hold pairs are only moved.
namespace fattn::host::FATTN_TARGET {

inline Vec load_bits(const void* p) {
  Vec bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return bits;
}
inline void store_bits(void* p, Vec bits) { __builtin_memcpy(p, &bits, sizeof bits); }

// The pairs of kLanes elements from a and kLanes from b on.
inline Vec pairs_of(const std::uint16_t* a, const std::uint16_t* b) {
  return {__builtin_bit_cast(float, *a | static_cast<std::uint32_t>(*b) << 16)};
}
// Both rounded to bf16.
inline Vec pairs_of(Vec a, Vec b) {
  return {__builtin_bit_cast(float, bf16_from_float(a.v) | static_cast<std::uint32_t>(bf16_from_float(b.v)) << 16)};
}

// Weights, rounded as on AMX: ties go up.
inline Vec integer_pairs_of(Vec a, Vec b) {
  const std::uint32_t low = __builtin_bit_cast(std::uint32_t, a.v) + 0x8000u;
  const std::uint32_t high = __builtin_bit_cast(std::uint32_t, b.v) + 0x8000u;
  return {__builtin_bit_cast(float, low >> 16 | (high & 0xffff0000u))};
}

// `count` vectors, rounded, one after the other.
template <int count>
inline void store_rounded(std::uint16_t* p, const Vec (&row)[count]) {
  for (int j = 0; j < count; ++j) p[j] = bf16_from_float(row[j].v);
}

// Two rows, rounded, and their pairs to two halves of a panel.
template <int count>
inline void store_rounded_pairs(std::uint16_t* first, std::uint16_t* second, const Vec (&a)[count],
                                const Vec (&b)[count], std::uint16_t* pairs, std::int64_t half) {
  for (int j = 0; j < count; ++j) {
    std::uint16_t* const to = pairs + 2 * j / count * half + 2 * j % count;
    first[j] = to[0] = bf16_from_float(a[j].v);
    second[j] = to[1] = bf16_from_float(b[j].v);
  }
}
inline constexpr int query_of_lane(int lane) { return lane; }

}  // namespace fattn::host::FATTN_TARGET
