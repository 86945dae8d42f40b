// SPDX-License-Identifier: Apache-2.0
#pragma once

// Sixteen fp32 lanes in AVX-512 F, BW, DQ, VL. Included inside the target regions of targets/avx512*.cpp; the
// operations and their meaning are those of vec/scalar.hpp.
namespace fattn::host::FATTN_TARGET {

inline constexpr int kLanes = 16;

struct Vec {
  __m512 v;
};
struct IntVec {
  __m512i v;
};
struct MaskVec {
  __mmask16 v;
};

inline Vec zero() { return {_mm512_setzero_ps()}; }
inline Vec splat(float x) { return {_mm512_set1_ps(x)}; }
inline Vec splat_from(const float* p) { return {_mm512_set1_ps(*p)}; }
inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec round(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Vec abs(Vec a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
inline Vec copy_sign(Vec magnitude, Vec sign) {
  const __m512 bit = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(bit, magnitude.v), _mm512_and_ps(bit, sign.v))};
}

inline MaskVec operator<(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline MaskVec operator==(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline MaskVec operator&(MaskVec a, MaskVec b) { return {static_cast<__mmask16>(a.v & b.v)}; }
inline bool all(MaskVec a) { return a.v == 0xffff; }
inline Vec select(MaskVec mask, Vec yes, Vec no) { return {_mm512_mask_blend_ps(mask.v, no.v, yes.v)}; }

inline IntVec splat(int x) { return {_mm512_set1_epi32(x)}; }
inline IntVec load(const int* p) { return {_mm512_loadu_si512(p)}; }
inline IntVec count_from(int first) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm512_add_epi32(_mm512_set1_epi32(first), lanes)};
}
inline IntVec operator+(IntVec a, IntVec b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline IntVec operator-(IntVec a, IntVec b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline MaskVec operator<(IntVec a, IntVec b) { return {_mm512_cmplt_epi32_mask(a.v, b.v)}; }
inline IntVec abs(IntVec a) { return {_mm512_abs_epi32(a.v)}; }
inline Vec to_float(IntVec a) { return {_mm512_cvtepi32_ps(a.v)}; }

inline constexpr float kPowerHeadroom = 1;
inline Vec times_power_of_two(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }

// x = whole + fraction, fraction in [0, 1]. Infinity is whole; what times_power_of_two() rounds down stays as it is.
struct Split {
  Vec whole, fraction;
};
inline Split split(Vec x) { return {x, {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}}; }

inline float sum(Vec a) { return _mm512_reduce_add_ps(a.v); }
inline Vec sums(const Vec (&a)[kLanes]) {
  // Halves of 2, 4, 8 and 16 vectors meet in one; the order of lanes is put right by which vectors meet.
  __m512 b[8], c[4], d[2];
  FATTN_UNROLL(8)
  for (int i = 0; i < 8; ++i) {
    const __m512 x = a[2 * i].v, y = a[2 * i + 1].v;
    b[i] = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
  }
  FATTN_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    c[i] =
        _mm512_add_ps(_mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0x44), _mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0xee));
  }
  FATTN_UNROLL(2)
  for (int i = 0; i < 2; ++i) {
    d[i] = _mm512_add_ps(_mm512_shuffle_f32x4(c[2 * i], c[2 * i + 1], 0x88),
                         _mm512_shuffle_f32x4(c[2 * i], c[2 * i + 1], 0xdd));
  }
  return {_mm512_add_ps(_mm512_shuffle_f32x4(d[0], d[1], 0x88), _mm512_shuffle_f32x4(d[0], d[1], 0xdd))};
}

// Rows become columns: pairs of rows, fours, then the four quarters of the registers change places twice.
inline void transpose(Vec (&r)[kLanes]) {
  __m512 a[16], b[16];
  FATTN_UNROLL(8)
  for (int i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_ps(r[2 * i].v, r[2 * i + 1].v);
    a[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i].v, r[2 * i + 1].v);
  }
  FATTN_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    b[4 * i] = _mm512_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
    b[4 * i + 1] = _mm512_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
    b[4 * i + 2] = _mm512_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
    b[4 * i + 3] = _mm512_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
  }
  FATTN_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
    a[i + 4] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
    a[i + 8] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
    a[i + 12] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
  }
  FATTN_UNROLL(8)
  for (int i = 0; i < 8; ++i) {
    r[i].v = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
    r[i + 8].v = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
  }
}

// The formats of tensors: fp32 lanes from memory, to memory (rounded to nearest even), and rounded but kept as fp32.
template <DType dtype>
struct Format;

template <>
struct Format<DType::fp32> {
  using Element = float;
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
  static Vec round(Vec a) { return a; }
  static float widen(float x) { return x; }
  static float narrow(float x) { return x; }
};

template <>
struct Format<DType::bf16> {
  using Element = std::uint16_t;
  static Vec load(const Element* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  // Bits of the rounded value in the upper halves, rubbish below.
  static __m512i rounded_bits(Vec a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    // The carry could turn a NaN into zero: NaNs are made quiet instead.
    return _mm512_mask_or_epi32(sum, _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x400000));
  }
  static void store(Element* p, Vec a) {
    const __m512i bits = _mm512_srli_epi32(rounded_bits(a), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(bits));
  }
  static Vec round(Vec a) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm512_castsi512_ps(_mm512_and_si512(rounded_bits(a), upper))};
  }
  static float widen(Element x) { return float_from_bf16(x); }
  static Element narrow(float x) { return bf16_from_float(x); }
};

template <>
struct Format<DType::fp16> {
  using Element = std::uint16_t;
  static Vec load(const Element* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static __m256i narrow_bits(Vec a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static void store(Element* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_bits(a)); }
  static Vec round(Vec a) { return {_mm512_cvtph_ps(narrow_bits(a))}; }
  static float widen(Element x) { return float_from_fp16(x); }
  static Element narrow(float x) { return fp16_from_float(x); }
};

}  // namespace fattn::host::FATTN_TARGET
