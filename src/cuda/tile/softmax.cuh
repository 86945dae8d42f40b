// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/arithmetic.cuh"
#include "cuda/tile/fragment.cuh"
#include "cuda/tile/mask.cuh"

// Online softmax on an accumulator of scores. Weights are 2^(score * scale_log2 - reference): any finite reference
// gives the exact result as long as nothing over- or underflows, so it need not be the maximum.
namespace fattn::gpu::tile {

struct SoftmaxRows {
  float reference[2];  // in powers of two; -inf: the row has not met a key
  float sum[2];        // this lane's part of the row's sum
};

// Turns elements [from, to) of the scores into weights and adds them to this lane's sums.
template <int from, int to, int count>
__device__ __forceinline__ void weigh_part(float (&scores)[count], float (&sum)[2], const float (&shift)[2],
                                           float scale_log2) {
#pragma unroll
  for (int i = from; i < to; i += 4) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      scores[i + 2 * r] = ptx::exp2_approx(fmaf(scores[i + 2 * r], scale_log2, shift[r]));
      scores[i + 2 * r + 1] = ptx::exp2_approx(fmaf(scores[i + 2 * r + 1], scale_log2, shift[r]));
      const float two = scores[i + 2 * r] + scores[i + 2 * r + 1];
      sum[r] = i == 0 ? two : sum[r] + two;
    }
  }
}

template <int from, int to, int count>
__device__ __forceinline__ void weigh_nothing(float (&scores)[count]) {
  float nothing[to - from] = {};
  ptx::pin(nothing);  // zeros known to the compiler would make it copy what follows
#pragma unroll
  for (int i = from; i < to; i++) scores[i] = nothing[i - from];
}

// Turns scores into weights and gives this lane's sums of them. Halves that are not seen weigh nothing.
template <int count, class Seen = AllSeen>
__device__ __forceinline__ void weigh(float (&scores)[count], float (&sum)[2], const float (&reference)[2],
                                      float scale_log2, const Seen& seen = {}) {
  float shift[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    shift[r] = reference[r] == -INFINITY ? 0.f : -reference[r];
    sum[r] = 0.f;
  }
  if (seen.left())
    weigh_part<0, count / 2>(scores, sum, shift, scale_log2);
  else
    weigh_nothing<0, count / 2>(scores);
  if (seen.right())
    weigh_part<count / 2, count>(scores, sum, shift, scale_log2);
  else
    weigh_nothing<count / 2, count>(scores);
}

template <int from, int to, int count>
__device__ __forceinline__ void lane_tops(float (&top)[2], const float (&values)[count]) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float even = fmaxf(values[from + 2 * r], values[from + 2 * r + 1]);
    float odd = fmaxf(values[from + 4 + 2 * r], values[from + 5 + 2 * r]);
#pragma unroll
    for (int i = from + 8; i < to; i += 4) {
      float& most = (i - from) % 8 == 0 ? even : odd;
      most = fmaxf(most, fmaxf(values[i + 2 * r], values[i + 2 * r + 1]));
    }
    top[r] = fmaxf(top[r], fmaxf(even, odd));
  }
}

// The largest value of each of the thread's rows.
template <int count, class Seen = AllSeen>
__device__ __forceinline__ void row_tops(float (&top)[2], const float (&values)[count], const Seen& seen = {}) {
  top[0] = top[1] = -INFINITY;
  if (seen.left()) lane_tops<0, count / 2>(top, values);
  if (seen.right()) lane_tops<count / 2, count>(top, values);
  top[0] = row_max(top[0]), top[1] = row_max(top[1]);
}

// The first tile of a row.
template <int count, class Seen = AllSeen>
__device__ __forceinline__ void softmax_first(float (&scores)[count], SoftmaxRows& rows, float scale_log2,
                                              const Seen& seen = {}) {
  row_tops(rows.reference, scores, seen);
  rows.reference[0] *= scale_log2, rows.reference[1] *= scale_log2;
  weigh(scores, rows.sum, rows.reference, scale_log2, seen);
}

// With the rows' true maxima; right for every input. The reference moves only when some row of the warp grew by more
// than 2^8, or by so much that one weight is about an eighth of the row's sum: such a weight becomes exactly 1, so that
// rounding it costs nothing. Returns whether it moved: the output must then be multiplied by `factor`.
template <int count, class Seen = AllSeen>
__device__ __forceinline__ bool softmax_exact(float (&scores)[count], SoftmaxRows& rows, float (&factor)[2],
                                              float scale_log2, const Seen& seen = {}) {
  float top[2], sum[2];
  row_tops(top, scores, seen);
  top[0] *= scale_log2, top[1] *= scale_log2;
  bool grew = false;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const float limit = fminf(fmaxf(ptx::log2_approx(rows.sum[r]) - 1.f, 0.f), 8.f);  // of this lane's quarter
    grew |= top[r] - rows.reference[r] > limit;
  }
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
  weigh(scores, sum, rows.reference, scale_log2, seen);
  rows.sum[0] += sum[0], rows.sum[1] += sum[1];
  return move;
}

// With the reference left where it is: no maxima. Every row must have met a key. When this lane's weights of a tile add
// up to more than `alarm`, the reference moves to the row's maximum after all: so that a key which decides its row
// weighs exactly 1, and rounding costs it nothing. The output must then be multiplied by `factor`. Where a sum is not
// below kOverflow afterwards, the tile has to be done again with softmax_exact, from sum_before and the output before.
inline constexpr float kOverflow = 0x1p100f;
// RMS error of O beside cuDNN's on data with outliers, full, d 64 and 128: 1.13 and 1.11 with 2^8, 1.045 and 1.03 with
// 32. Behind a masked tile, of which some rows see few keys, 32 moves nearly every time: causal d 64 2 to 4 % slower.
inline constexpr float kAlarm = 32.f, kAlarmBehindMask = 256.f;
template <int count>
__device__ __forceinline__ bool softmax_stale(float (&scores)[count], SoftmaxRows& rows, float (&factor)[2],
                                              float (&sum_before)[2], float scale_log2, float alarm) {
  float sum[2];
  weigh(scores, sum, rows.reference, scale_log2);
  const bool move = __any_sync(~0u, sum[0] > alarm || sum[1] > alarm);
  if (move) {
    float top[2];
    row_tops(top, scores);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      factor[r] = 1.f;
      if (!(top[r] > 1.f && top[r] < kOverflow)) continue;
      const float reference = rows.reference[r] + ptx::log2_approx(top[r]);
      factor[r] = ptx::exp2_approx(rows.reference[r] - reference);  // of the rounded sum, so that nothing drifts
      rows.reference[r] = reference;
      rows.sum[r] *= factor[r];
      sum[r] *= factor[r];
    }
    scale_rows(scores, factor);
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    sum_before[r] = rows.sum[r];
    rows.sum[r] += sum[r];
  }
  return move;
}

}  // namespace fattn::gpu::tile
