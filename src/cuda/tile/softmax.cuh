// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/arithmetic.cuh"
#include "cuda/tile/fragment.cuh"

// Online softmax on an accumulator of scores. Weights are 2^(score * scale_log2 - reference): any finite reference
// gives the exact result as long as nothing over- or underflows, so it need not be the maximum.
namespace fattn::gpu::tile {

struct SoftmaxRows {
  float reference[2];  // in powers of two; -inf: the row has not met a key
  float sum[2];        // this lane's part of the row's sum
};

// Turns scores into weights and adds them to the row sums.
template <int count>
__device__ __forceinline__ void weigh(float (&scores)[count], SoftmaxRows& rows, float scale_log2) {
  float shift[2];
#pragma unroll
  for (int r = 0; r < 2; r++) shift[r] = rows.reference[r] == -INFINITY ? 0.f : -rows.reference[r];
#pragma unroll
  for (int i = 0; i < count; i += 4) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      scores[i + 2 * r] = ptx::exp2_approx(fmaf(scores[i + 2 * r], scale_log2, shift[r]));
      scores[i + 2 * r + 1] = ptx::exp2_approx(fmaf(scores[i + 2 * r + 1], scale_log2, shift[r]));
      rows.sum[r] += scores[i + 2 * r] + scores[i + 2 * r + 1];
    }
  }
}

// The largest scaled score of each of the thread's rows.
template <int count>
__device__ __forceinline__ void row_tops(float (&top)[2], const float (&scores)[count], float scale_log2) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float even = fmaxf(scores[2 * r], scores[2 * r + 1]), odd = fmaxf(scores[2 * r + 4], scores[2 * r + 5]);
#pragma unroll
    for (int i = 8; i < count; i += 8) {
      even = fmaxf(even, fmaxf(scores[i + 2 * r], scores[i + 2 * r + 1]));
      odd = fmaxf(odd, fmaxf(scores[i + 4 + 2 * r], scores[i + 5 + 2 * r]));
    }
    top[r] = row_max(fmaxf(even, odd)) * scale_log2;
  }
}

// The first tile of a row.
template <int count>
__device__ __forceinline__ void softmax_first(float (&scores)[count], SoftmaxRows& rows, float scale_log2) {
  row_tops(rows.reference, scores, scale_log2);
  rows.sum[0] = rows.sum[1] = 0.f;
  weigh(scores, rows, scale_log2);
}

// With the rows' true maxima; right for every input. The reference moves only when some row of the warp grew by more
// than 2^8. Returns whether it did: the output must then be multiplied by `factor`.
template <int count>
__device__ __forceinline__ bool softmax_exact(float (&scores)[count], SoftmaxRows& rows, float (&factor)[2],
                                              float scale_log2) {
  float top[2];
  row_tops(top, scores, scale_log2);
  const bool grew = top[0] - rows.reference[0] > 8.f || top[1] - rows.reference[1] > 8.f;
  const bool move = __any_sync(~0u, grew);
  if (move) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const float reference = fmaxf(rows.reference[r], top[r]);
      factor[r] = ptx::exp2_approx(rows.reference[r] - (reference == -INFINITY ? 0.f : reference));
      rows.reference[r] = reference;
      rows.sum[r] *= factor[r];
    }
  }
  weigh(scores, rows, scale_log2);
  return move;
}

// With the reference left where it is: no maxima. Every row must have met a key. When a row's sum passes 2^40, weights
// and sum are brought back to about one; the output must then be multiplied by `factor`. A sum that is infinite
// afterwards says that the tile has to be done again with softmax_exact, from the sum and output before it.
template <int count>
__device__ __forceinline__ bool softmax_stale(float (&scores)[count], SoftmaxRows& rows, float (&factor)[2],
                                              float scale_log2) {
  constexpr float kAlarm = 0x1p40f;
  weigh(scores, rows, scale_log2);
  const bool move = __any_sync(~0u, rows.sum[0] > kAlarm || rows.sum[1] > kAlarm);
  if (move) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const float largest = row_max(rows.sum[r]);  // the lanes of a row move together
      factor[r] = 1.f;
      if (!(largest > kAlarm)) continue;
      const int exponent = min((__float_as_int(largest) >> 23) - 127, 100);  // 2^-126 would do, were it not rounded
      const float reference = rows.reference[r] + static_cast<float>(exponent);
      factor[r] = ptx::exp2_approx(rows.reference[r] - reference);  // of the rounded sum, so that nothing drifts
      rows.reference[r] = reference;
      rows.sum[r] *= factor[r];
    }
    scale_rows(scores, factor);
  }
  return move;
}

}  // namespace fattn::gpu::tile
