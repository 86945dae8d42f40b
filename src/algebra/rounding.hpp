// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "algebra/host_device.hpp"

namespace fattn {

// Conversions between fp32 (fp64) and the short formats as bit patterns, round to nearest, ties to even, in integer
// arithmetic: the same bits on every compiler, host and device. NaNs stay NaN, quiet, with the sign kept.

namespace detail {

FATTN_HD constexpr std::uint32_t bits_of(float x) { return __builtin_bit_cast(std::uint32_t, x); }
FATTN_HD constexpr float float_of(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }

// Drops `shift` low bits, rounding to nearest even.
FATTN_HD constexpr std::uint32_t shift_round(std::uint32_t bits, int shift) {
  const std::uint32_t odd = (bits >> shift) & 1u;
  return (bits + (1u << (shift - 1)) - 1u + odd) >> shift;
}

// Magnitude of a finite fp32 in a format with `mantissa` explicit bits and exponent bias `bias` below 127. The result
// may pass the largest finite value: the caller knows what follows it.
template <int mantissa, int bias>
FATTN_HD constexpr std::uint32_t narrow_magnitude(std::uint32_t magnitude) {
  const int exponent = static_cast<int>(magnitude >> 23);
  if (exponent > 127 - bias) {
    return shift_round(magnitude, 23 - mantissa) - (static_cast<std::uint32_t>(127 - bias) << mantissa);
  }
  // Subnormal there: the significand in units of 2^(1 - bias - mantissa).
  const int shift = 151 - bias - mantissa - exponent;
  return shift > 25 ? 0u : shift_round((magnitude & 0x7fffffu) | 0x800000u, shift);
}

// The value of a finite magnitude of such a format; exact.
template <int mantissa, int bias>
FATTN_HD constexpr float widen_magnitude(std::uint32_t magnitude) {
  if (magnitude >> mantissa == 0) {
    return static_cast<float>(magnitude) * float_of(static_cast<std::uint32_t>(128 - bias - mantissa) << 23);
  }
  return float_of((magnitude << (23 - mantissa)) + (static_cast<std::uint32_t>(127 - bias) << 23));
}

}  // namespace detail

// bf16: 8 bits of exponent, 7 of mantissa.
FATTN_HD constexpr std::uint16_t bf16_from_float(float x) {
  const std::uint32_t bits = detail::bits_of(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>(detail::shift_round(bits & 0x7fffffffu, 16) | (bits >> 16 & 0x8000u));
}
FATTN_HD constexpr float float_from_bf16(std::uint16_t bits) {
  return detail::float_of(static_cast<std::uint32_t>(bits) << 16);
}

// IEEE half: 5 bits of exponent, 10 of mantissa. Overflow gives infinity.
FATTN_HD constexpr std::uint16_t fp16_from_float(float x) {
  const std::uint32_t bits = detail::bits_of(x), magnitude = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 2^16 and above
  return static_cast<std::uint16_t>(sign | detail::narrow_magnitude<10, 15>(magnitude));
}
FATTN_HD constexpr float float_from_fp16(std::uint16_t bits) {
  const std::uint32_t magnitude = bits & 0x7fffu, sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  if (magnitude >= 0x7c00u) return detail::float_of(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  return detail::float_of(sign | detail::bits_of(detail::widen_magnitude<10, 15>(magnitude)));
}

// e4m3 (OCP, "fn"): 4 bits of exponent, 3 of mantissa, no infinity, 0x7f is NaN. Saturates at 448, as the hardware
// does.
FATTN_HD constexpr std::uint8_t e4m3_from_float(float x) {
  const std::uint32_t bits = detail::bits_of(x), magnitude = bits & 0x7fffffffu, sign = bits >> 24 & 0x80u;
  if (magnitude > 0x7f800000u) return static_cast<std::uint8_t>(sign | 0x7fu);
  if (magnitude >= 0x43e80000u) return static_cast<std::uint8_t>(sign | 0x7eu);  // 464, half way past 448
  return static_cast<std::uint8_t>(sign | detail::narrow_magnitude<3, 7>(magnitude));
}
FATTN_HD constexpr float float_from_e4m3(std::uint8_t bits) {
  const std::uint32_t magnitude = bits & 0x7fu, sign = static_cast<std::uint32_t>(bits & 0x80u) << 24;
  if (magnitude == 0x7fu) return detail::float_of(sign | 0x7fc00000u);
  return detail::float_of(sign | detail::bits_of(detail::widen_magnitude<3, 7>(magnitude)));
}

// fp64 to fp32 rounded to odd: rounding that to a shorter format gives what rounding the fp64 once would, because the
// last bit remembers that something was cut off.
FATTN_HD constexpr float round_to_odd(double x) {
  const float nearest = static_cast<float>(x);
  const double back = static_cast<double>(nearest);
  const std::uint32_t bits = detail::bits_of(nearest);
  if (back == x || x != x || (bits & 1u) != 0) return nearest;
  // Even and inexact: the odd neighbour lies on the other side of x. Overflow to infinity steps back to the largest
  // float.
  const bool too_large = (back > x) == (x > 0);
  return detail::float_of(too_large ? bits - 1u : bits + 1u);
}

}  // namespace fattn
