// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/arithmetic.cuh"

// Changes of scores before the softmax, on an accumulator (fragment.cuh). Results are in powers of two.
namespace fattn::gpu::tile {

template <int count>
__device__ __forceinline__ void scale(float (&scores)[count], float factor) {
#pragma unroll
  for (int i = 0; i < count; i++) scores[i] *= factor;
}

// cap * tanh(x) from y = 2 x log2 e. The hardware's own tanh is only good to 2^-11, and cap - 2 cap / (2^y + 1) is the
// difference of two large numbers where x is small, as coarse as the cap. So up to |x| = 1/2, where scores are in
// practice, tanh is y times a polynomial of y^2 (2^-26 at most from it), which also spares the exponential unit.
inline constexpr float kSmallCapped = 1.4426950f;

__device__ __forceinline__ float tanh_small(float y) {
  const float z = y * y;
  return y * fmaf(z, fmaf(z, fmaf(z, fmaf(z, 1.23607106e-6f, -3.18221864e-5f), 6.66250184e-4f), -1.38759175e-2f),
                  3.46573591e-1f);
}

struct Tanh {
  float value;
  float derivative;
};

// With r = 1 / (2^y + 1), tanh = 1 - 2 r and tanh' = 4 r (1 - r).
__device__ __forceinline__ Tanh tanh_any(float y) {
  const float r = ptx::reciprocal_approx(ptx::exp2_approx(y) + 1.f);
  return {fabsf(y) <= kSmallCapped ? tanh_small(y) : fmaf(-2.f, r, 1.f), 4.f * r * (1.f - r)};
}

// Scores to cap * tanh(score / cap), by cap_in and cap_out of ModifiedScore. keep(i, derivative) is called for each, in
// order. All lanes take part: where `group` scores of every lane are small, none goes through the exponential unit.
// Groups smaller than all need fewer registers.
template <int group, int count, class Keep>
__device__ __forceinline__ void softcap(float (&scores)[count], float cap_in, float cap_out, Keep&& keep) {
#pragma unroll
  for (int first = 0; first < count; first += group) {
    float top = 0.f;
#pragma unroll
    for (int i = first; i < first + group; i++) {
      scores[i] *= cap_in;
      top = fmaxf(top, fabsf(scores[i]));
    }
    if (__any_sync(~0u, top > kSmallCapped)) {
#pragma unroll
      for (int i = first; i < first + group; i++) {
        const Tanh one = tanh_any(scores[i]);
        scores[i] = cap_out * one.value;
        keep(i, one.derivative);
      }
    } else {
#pragma unroll
      for (int i = first; i < first + group; i++) {
        const float value = tanh_small(scores[i]);
        scores[i] = cap_out * value;
        keep(i, fmaf(-value, value, 1.f));
      }
    }
  }
}

// Minus slope * |distance of the key|. `diagonal` counts from the tile's first key.
template <int count>
__device__ __forceinline__ void alibi(float (&scores)[count], const float (&slope)[2], const int (&diagonal)[2]) {
  const int column = 2 * (threadIdx.x % 4);
#pragma unroll
  for (int i = 0; i < count; i++) {
    const int r = i / 2 % 2;
    scores[i] = fmaf(-slope[r], fabsf(static_cast<float>(diagonal[r] - column - (8 * (i / 4) + i % 2))), scores[i]);
  }
}

}  // namespace fattn::gpu::tile
