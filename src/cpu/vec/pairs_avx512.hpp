// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/vec/avx512.hpp"

// The operations of vec/pairs_scalar.hpp on sixteen lanes, with AVX512_BF16.
namespace fattn::host::FATTN_TARGET {

inline Vec load_bits(const void* p) { return {_mm512_loadu_ps(p)}; }
inline void store_bits(void* p, Vec bits) { _mm512_storeu_ps(p, bits.v); }

inline Vec pairs_of(const std::uint16_t* a, const std::uint16_t* b) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
  const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
  return {_mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)))};
}
// The conversion takes subnormals as 0, like the products that follow.
inline Vec pairs_of(Vec a, Vec b) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512bh both = _mm512_cvtne2ps_pbh(b.v, a.v);
  return {_mm512_castsi512_ps(_mm512_permutexvar_epi16(order, reinterpret_cast<const __m512i&>(both)))};
}

// Weights, rounded by integers: ties go up, and subnormals are left to the products. For processors on which the
// conversion is slow. NaN may be lost; whose sum is NaN needs no weights.
inline Vec integer_pairs_of(Vec a, Vec b) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(a.v), half), 16);
  const __m512i high = _mm512_add_epi32(_mm512_castps_si512(b.v), half);
  constexpr int kSecondWhereThirdElseFirst = 0xd8;
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(low, high, upper, kSecondWhereThirdElseFirst))};
}

// `count` vectors, rounded, one after the other.
template <int count>
inline void store_rounded(std::uint16_t* p, const Vec (&row)[count]) {
  static_assert(count % 2 == 0);
  FATTN_UNROLL(8)
  for (int j = 0; j < count; j += 2) {
    const __m512bh both = _mm512_cvtne2ps_pbh(row[j + 1].v, row[j].v);
    _mm512_storeu_si512(p + j * kLanes, reinterpret_cast<const __m512i&>(both));
  }
}

// Two rows of 32, rounded, one after the other to `first` and `second`, and their pairs to two halves of a panel, in
// the order in which one instruction makes them: lane n holds query_of_lane(n).
inline void store_rounded_pairs(std::uint16_t* first, std::uint16_t* second, const Vec (&a)[2], const Vec (&b)[2],
                                std::uint16_t* pairs, std::int64_t half) {
  const __m512bh a_both = _mm512_cvtne2ps_pbh(a[1].v, a[0].v), b_both = _mm512_cvtne2ps_pbh(b[1].v, b[0].v);
  const auto a_bits = reinterpret_cast<const __m512i&>(a_both), b_bits = reinterpret_cast<const __m512i&>(b_both);
  _mm512_storeu_si512(first, a_bits);
  _mm512_storeu_si512(second, b_bits);
  _mm512_storeu_si512(pairs, _mm512_unpacklo_epi16(a_bits, b_bits));
  _mm512_storeu_si512(pairs + half, _mm512_unpackhi_epi16(a_bits, b_bits));
}
inline constexpr int query_of_lane(int lane) { return lane % 16 / 4 * 8 + lane / 16 * 4 + lane % 4; }

}  // namespace fattn::host::FATTN_TARGET
