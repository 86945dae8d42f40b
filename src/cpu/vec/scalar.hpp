// SPDX-License-Identifier: Apache-2.0
#pragma once

// One lane of plain C++, for machines without a vector target of their own, and the specification of the operations:
// every vec/<target>.hpp has these, with its own kLanes.
namespace fattn::host::FATTN_TARGET {

inline constexpr int kLanes = 1;

struct Vec {
  float v;
};
struct IntVec {
  int v;
};
struct MaskVec {
  bool v;
};

inline Vec zero() { return {0.0f}; }
inline Vec splat(float x) { return {x}; }
inline Vec splat_from(const float* p) { return {*p}; }
inline Vec load(const float* p) { return {*p}; }
inline void store(float* p, Vec a) { *p = a.v; }

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
// The second operand when either is NaN.
inline Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
inline Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
// To nearest even, for |a| < 2^22: adding 1.5 * 2^23 leaves no bit for the fraction.
inline Vec round(Vec a) { return {(a.v + 12582912.0f) - 12582912.0f}; }
inline Vec abs(Vec a) { return {__builtin_fabsf(a.v)}; }
inline Vec copy_sign(Vec magnitude, Vec sign) { return {__builtin_copysignf(magnitude.v, sign.v)}; }

// False when either is NaN.
inline MaskVec operator<(Vec a, Vec b) { return {a.v < b.v}; }
inline MaskVec operator==(Vec a, Vec b) { return {a.v == b.v}; }
inline MaskVec operator&(MaskVec a, MaskVec b) { return {a.v && b.v}; }
inline bool all(MaskVec a) { return a.v; }
inline Vec select(MaskVec mask, Vec yes, Vec no) { return mask.v ? yes : no; }

inline IntVec splat(int x) { return {x}; }
inline IntVec load(const int* p) { return {*p}; }
inline IntVec count_from(int first) { return {first}; }  // first, first + 1, ...
inline IntVec operator+(IntVec a, IntVec b) { return {a.v + b.v}; }
inline IntVec operator-(IntVec a, IntVec b) { return {a.v - b.v}; }
inline MaskVec operator<(IntVec a, IntVec b) { return {a.v < b.v}; }
inline IntVec abs(IntVec a) { return {a.v < 0 ? -a.v : a.v}; }
inline Vec to_float(IntVec a) { return {static_cast<float>(a.v)}; }

// a * 2^n / kPowerHeadroom for whole n in [-151, 101] and a within [1/2, 2] * kPowerHeadroom, subnormal results too.
// The exponent has the room of 2^26 below; the product takes it back. What would be 0 is set to 0 before it, because
// some processors are slow when a product underflows.
inline constexpr float kPowerHeadroom = 67108864.0f;
inline Vec times_power_of_two(Vec a, Vec n) {
  const std::uint32_t power = static_cast<std::uint32_t>(static_cast<int>(n.v)) << 23;
  const float scaled = __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, a.v) + power);
  return {(n.v < -150.0f ? 0.0f : scaled) * (1 / kPowerHeadroom)};
}

// x = whole + fraction, fraction in [0, 1], for x < 100; what is below -151 is taken as that.
struct Split {
  Vec whole, fraction;
};
inline Split split(Vec x) {
  const Vec bounded = max(splat(-151.0f), x);
  const Vec whole = {__builtin_floorf(bounded.v)};
  return {whole, bounded - whole};
}

inline float sum(Vec a) { return a.v; }
// Lane i is the sum of a[i].
inline Vec sums(const Vec (&a)[kLanes]) { return a[0]; }
inline void transpose(Vec (&)[kLanes]) {}

// The formats of tensors: fp32 lanes from memory, to memory (rounded to nearest even), and rounded but kept as fp32.
template <DType dtype>
struct Format;

template <>
struct Format<DType::fp32> {
  using Element = float;
  static Vec load(const float* p) { return {*p}; }
  static void store(float* p, Vec a) { *p = a.v; }
  static Vec round(Vec a) { return a; }
  static float widen(float x) { return x; }
  static float narrow(float x) { return x; }
};

template <>
struct Format<DType::bf16> {
  using Element = std::uint16_t;
  static Vec load(const Element* p) { return {float_from_bf16(*p)}; }
  static void store(Element* p, Vec a) { *p = bf16_from_float(a.v); }
  static Vec round(Vec a) { return {float_from_bf16(bf16_from_float(a.v))}; }
  static float widen(Element x) { return float_from_bf16(x); }
  static Element narrow(float x) { return bf16_from_float(x); }
};

template <>
struct Format<DType::fp16> {
  using Element = std::uint16_t;
  static Vec load(const Element* p) { return {float_from_fp16(*p)}; }
  static void store(Element* p, Vec a) { *p = fp16_from_float(a.v); }
  static Vec round(Vec a) { return {float_from_fp16(fp16_from_float(a.v))}; }
  static float widen(Element x) { return float_from_fp16(x); }
  static Element narrow(float x) { return fp16_from_float(x); }
};

}  // namespace fattn::host::FATTN_TARGET
