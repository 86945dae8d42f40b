// SPDX-License-Identifier: Apache-2.0
#pragma once

// Eight fp32 lanes in AVX2, FMA and F16C. Included inside the target region of targets/avx2.cpp; the operations and
// their meaning are those of vec/scalar.hpp.
namespace fattn::host::FATTN_TARGET {

inline constexpr int kLanes = 8;

struct Vec {
  __m256 v;
};
struct IntVec {
  __m256i v;
};
struct MaskVec {
  __m256 v;
};

inline Vec zero() { return {_mm256_setzero_ps()}; }
inline Vec splat(float x) { return {_mm256_set1_ps(x)}; }
inline Vec splat_from(const float* p) { return {_mm256_broadcast_ss(p)}; }
inline Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec round(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Vec copy_sign(Vec magnitude, Vec sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(bit, magnitude.v), _mm256_and_ps(bit, sign.v))};
}

inline MaskVec operator<(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline MaskVec operator==(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
inline MaskVec operator&(MaskVec a, MaskVec b) { return {_mm256_and_ps(a.v, b.v)}; }
inline Vec select(MaskVec mask, Vec yes, Vec no) { return {_mm256_blendv_ps(no.v, yes.v, mask.v)}; }

inline IntVec splat(int x) { return {_mm256_set1_epi32(x)}; }
inline IntVec load(const int* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline IntVec count_from(int first) {
  return {_mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))};
}
inline IntVec operator+(IntVec a, IntVec b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline IntVec operator-(IntVec a, IntVec b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline MaskVec operator<(IntVec a, IntVec b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.v, a.v))}; }
inline IntVec abs(IntVec a) { return {_mm256_abs_epi32(a.v)}; }
inline Vec to_float(IntVec a) { return {_mm256_cvtepi32_ps(a.v)}; }

inline constexpr float kPowerHeadroom = 67108864.0f;
inline Vec times_power_of_two(Vec a, Vec n) {
  const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
  const __m256 scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.v), power));
  const __m256 kept = _mm256_andnot_ps(_mm256_cmp_ps(n.v, _mm256_set1_ps(-150.0f), _CMP_LT_OQ), scaled);
  return {_mm256_mul_ps(kept, _mm256_set1_ps(1 / kPowerHeadroom))};
}

// x = whole + fraction, fraction in [0, 1], for x < 100; what is below -151 is taken as that.
struct Split {
  Vec whole, fraction;
};
inline Split split(Vec x) {
  const Vec bounded = max(splat(-151.0f), x);
  const Vec whole = {_mm256_floor_ps(bounded.v)};
  return {whole, bounded - whole};
}

inline float sum(Vec a) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
}
inline Vec sums(const Vec (&a)[kLanes]) {
  const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(a[0].v, a[1].v), _mm256_hadd_ps(a[2].v, a[3].v));
  const __m256 c = _mm256_hadd_ps(_mm256_hadd_ps(a[4].v, a[5].v), _mm256_hadd_ps(a[6].v, a[7].v));
  return {_mm256_add_ps(_mm256_permute2f128_ps(b, c, 0x20), _mm256_permute2f128_ps(b, c, 0x31))};
}

// Rows become columns.
inline void transpose(Vec (&r)[kLanes]) {
  __m256 a[8], b[8];
  FATTN_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_ps(r[2 * i].v, r[2 * i + 1].v);
    a[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i].v, r[2 * i + 1].v);
  }
  FATTN_UNROLL(2)
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
    b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
    b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
    b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
  }
  FATTN_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    r[i].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    r[i + 4].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

// The formats of tensors: fp32 lanes from memory, to memory (rounded to nearest even), and rounded but kept as fp32.
template <DType dtype>
struct Format;

template <>
struct Format<DType::fp32> {
  using Element = float;
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
  static Vec round(Vec a) { return a; }
  static float widen(float x) { return x; }
  static float narrow(float x) { return x; }
};

template <>
struct Format<DType::bf16> {
  using Element = std::uint16_t;
  static Vec load(const Element* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
  // Bits of the rounded value in the upper halves, rubbish below.
  static __m256i rounded_bits(Vec a) {
    const __m256i bits = _mm256_castps_si256(a.v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    // The carry could turn a NaN into zero: NaNs are made quiet instead.
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(sum, quiet, _mm256_castps_si256(nan));
  }
  static void store(Element* p, Vec a) {
    const __m256i bits = _mm256_srli_epi32(rounded_bits(a), 16);
    const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(pairs));
  }
  static Vec round(Vec a) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm256_castsi256_ps(_mm256_and_si256(rounded_bits(a), upper))};
  }
  static float widen(Element x) { return float_from_bf16(x); }
  static Element narrow(float x) { return bf16_from_float(x); }
};

template <>
struct Format<DType::fp16> {
  using Element = std::uint16_t;
  static Vec load(const Element* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
  static __m128i narrow_bits(Vec a) { return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static void store(Element* p, Vec a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_bits(a)); }
  static Vec round(Vec a) { return {_mm256_cvtph_ps(narrow_bits(a))}; }
  static float widen(Element x) { return float_from_fp16(x); }
  static Element narrow(float x) { return fp16_from_float(x); }
};

}  // namespace fattn::host::FATTN_TARGET
