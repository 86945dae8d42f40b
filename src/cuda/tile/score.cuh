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

// cap * tanh(x) = cap - 2 cap / (2^(2 x log2 e) + 1): the hardware's own tanh is only good to 2^-11.
template <int count>
__device__ __forceinline__ void softcap(float (&scores)[count], float cap_in, float cap_out) {
#pragma unroll
  for (int i = 0; i < count; i++)
    scores[i] = fmaf(-2.f * cap_out, ptx::reciprocal_approx(ptx::exp2_approx(scores[i] * cap_in) + 1.f), cap_out);
}

// The same for one score, and its derivative: with r = 1 / (2^(2 x log2 e) + 1), tanh = 1 - 2 r and tanh' = 4 r (1 -
// r).
struct Capped {
  float score;
  float derivative;
};

__device__ __forceinline__ Capped softcap_derivative(float score, float cap_in, float cap_out) {
  const float r = ptx::reciprocal_approx(ptx::exp2_approx(score * cap_in) + 1.f);
  return {fmaf(-2.f * cap_out, r, cap_out), 4.f * r * (1.f - r)};
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
