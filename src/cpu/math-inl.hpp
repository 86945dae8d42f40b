// SPDX-License-Identifier: Apache-2.0
#pragma once

// Elementary functions on vectors. The coefficients are minimax in the relative error, found by Remez exchange in
// 40-digit arithmetic; tests/cpu/micro_kernels.cpp holds the stated errors.
namespace fattn::host::FATTN_TARGET {

inline constexpr float kLog2e = 1.44269504088896340736f;

// 2^x within 1 ulp (1.25 without fused multiply-adds), subnormal results too. From x = 101 on the result stays at
// 2^101, NaN stays NaN.
inline Vec exp2(Vec x) {
  constexpr float kUp = kPowerHeadroom;
  const Vec bounded = min(splat(101.0f), max(splat(-151.0f), x));
  const Vec whole = round(bounded);
  const Vec f = bounded - whole;  // [-1/2, 1/2]
  // |relative error of the polynomial| < 1.9e-9
  Vec p = splat(kUp * 0.00015345811045f);
  p = fma(p, f, splat(kUp * 0.00133999311974f));
  p = fma(p, f, splat(kUp * 0.00961848896016f));
  p = fma(p, f, splat(kUp * 0.0555032877704f));
  p = fma(p, f, splat(kUp * 0.240226468906f));
  p = fma(p, f, splat(kUp * 0.693147205737f));
  p = fma(p, f, splat(kUp));
  return times_power_of_two(p, whole);
}

// 2^x for x < 100, NaN and -infinity; |relative error| < 1e-7, and one rounding; exact for whole x. For weights that
// are rounded to 16 bits. The polynomial is that of [0, 1], exact at both ends, so that the whole part needs no
// instruction where times_power_of_two() rounds down. Step by step for all of them: one after the other they would fill
// the processor's scheduler with instructions that wait.
template <int count>
FATTN_INLINE void exp2_of_weights(Vec (&x)[count]) {
  constexpr float kUp = kPowerHeadroom;
  Vec whole[count], p[count];
  FATTN_UNROLL(16)
  for (int i = 0; i < count; ++i) {
    const Split at = split(x[i]);
    whole[i] = at.whole, x[i] = at.fraction;
  }
  FATTN_UNROLL(16)
  for (int i = 0; i < count; ++i) p[i] = fma(splat(kUp * 0.00187931864871f), x[i], splat(kUp * 0.00899099509533f));
  FATTN_UNROLL(16)
  for (int i = 0; i < count; ++i) p[i] = fma(p[i], x[i], splat(kUp * 0.0558186759616f));
  FATTN_UNROLL(16)
  for (int i = 0; i < count; ++i) p[i] = fma(p[i], x[i], splat(kUp * 0.240159271465f));
  FATTN_UNROLL(16)
  for (int i = 0; i < count; ++i) p[i] = fma(p[i], x[i], splat(kUp * 0.69315173883f));
  FATTN_UNROLL(16)
  for (int i = 0; i < count; ++i) p[i] = fma(p[i], x[i], splat(kUp));
  FATTN_UNROLL(16)
  for (int i = 0; i < count; ++i) x[i] = times_power_of_two(p[i], whole[i]);
}
inline Vec exp2_of_weight(Vec x) {
  Vec one[1] = {x};
  exp2_of_weights(one);
  return one[0];
}

// Within 2 ulp.
inline Vec tanh(Vec x) {
  const Vec z = x * x, magnitude = abs(x);
  // tanh(x) = x + x^3 P(x^2) for |x| < 0.632; |relative error| < 5.1e-9
  Vec p = splat(-0.00564831682472f);
  p = fma(p, z, splat(0.0205898267993f));
  p = fma(p, z, splat(-0.0537251267094f));
  p = fma(p, z, splat(0.133312744338f));
  p = fma(p, z, splat(-0.333332760594f));
  const Vec near = fma(x * z, p, x);
  // 1 - 2 / (e^(2|x|) + 1); from 9.1 on that rounds to 1.
  const Vec e = exp2(min(splat(9.1f), magnitude) * splat(2 * kLog2e));
  const Vec far = splat(1.0f) - splat(2.0f) / (e + splat(1.0f));
  return select(magnitude < splat(0.632f), near, copy_sign(far, x));
}

}  // namespace fattn::host::FATTN_TARGET
