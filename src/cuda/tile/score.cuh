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

// cap * tanh(x) from y = 2 x log2 e: cap - 2 cap / (2^y + 1), for the hardware's own tanh is only good to 2^-11. Where
// |x| < 1/4 that would be the small difference of two large numbers, as coarse as the cap: there the series of tanh.
__device__ __forceinline__ float capped(float y, float r, float cap_out) {
  constexpr float c1 = 3.4657359e-1f, c3 = -1.3876027e-2f, c5 = 6.6667791e-4f, c7 = -3.2412059e-5f;
  const float z = y * y;
  const float series = cap_out * y * fmaf(z, fmaf(z, fmaf(z, c7, c5), c3), c1);
  return fabsf(y) < 0.72f ? series : fmaf(-2.f * cap_out, r, cap_out);
}

template <int count>
__device__ __forceinline__ void softcap(float (&scores)[count], float cap_in, float cap_out) {
#pragma unroll
  for (int i = 0; i < count; i++) {
    const float y = scores[i] * cap_in;
    scores[i] = capped(y, ptx::reciprocal_approx(ptx::exp2_approx(y) + 1.f), cap_out);
  }
}

// The same for one score, and its derivative: with r = 1 / (2^(2 x log2 e) + 1), tanh = 1 - 2 r and tanh' = 4 r (1 -
// r).
struct Capped {
  float score;
  float derivative;
};

__device__ __forceinline__ Capped softcap_derivative(float score, float cap_in, float cap_out) {
  const float y = score * cap_in, r = ptx::reciprocal_approx(ptx::exp2_approx(y) + 1.f);
  return {capped(y, r, cap_out), 4.f * r * (1.f - r)};
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
