// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/mask_band.hpp"
#include "cuda/ptx/pin.cuh"

namespace fattn::gpu::tile {

// Sets scores of keys outside `keys[r]` of the thread's two rows to `dropped`. The tile's first key is `key`. A side
// that cuts no row of the warp costs nothing.
template <int count>
__device__ __forceinline__ void mask_scores(float (&scores)[count], const Interval (&keys)[2], int key,
                                            float dropped = -INFINITY) {
  const int column = key + 2 * (threadIdx.x % 4), n = 2 * count;
  const int end[2] = {keys[0].end - column, keys[1].end - column};
  const int begin[2] = {keys[0].begin - column, keys[1].begin - column};
  if (__any_sync(~0u, min_of(keys[0].end, keys[1].end) < key + n)) {
#pragma unroll
    for (int i = 0; i < count; i++)
      if (8 * (i / 4) + i % 2 >= end[(i / 2) % 2]) scores[i] = dropped;
  }
  if (__any_sync(~0u, max_of(keys[0].begin, keys[1].begin) > key)) {
#pragma unroll
    for (int i = 0; i < count; i++)
      if (8 * (i / 4) + i % 2 < begin[(i / 2) % 2]) scores[i] = dropped;
  }
}

// Which halves of a tile's keys some row of the warp sees. What belongs to the others need not be computed. Each
// question is opaque to the compiler, which would else make a copy of all that follows for each case.
class SeenHalves {
 public:
  __device__ __forceinline__ SeenHalves() : left_(1), right_(1) {}
  __device__ __forceinline__ SeenHalves(bool left, bool right) : left_(left), right_(right) {}
  __device__ __forceinline__ bool left() const { return opaque(left_); }
  __device__ __forceinline__ bool right() const { return opaque(right_); }

 private:
  __device__ __forceinline__ static bool opaque(int flag) {
    ptx::pin(flag);
    return flag != 0;
  }
  int left_;
  int right_;
};
struct AllSeen {
  FATTN_HD static constexpr bool left() { return true; }
  FATTN_HD static constexpr bool right() { return true; }
};

// Elements [from, to) of the scores: masks them unless no row of the warp sees one of their keys.
template <int from, int to, int count>
__device__ __forceinline__ bool mask_part(float (&scores)[count], const Interval (&keys)[2], int key) {
  const int column = key + 2 * (threadIdx.x % 4), first = key + 2 * from, last = key + 2 * to;
  const bool seen =
      __any_sync(~0u, (keys[0].begin < last && keys[0].end > first) || (keys[1].begin < last && keys[1].end > first));
  if (seen) {
    if (__any_sync(~0u, min_of(keys[0].end, keys[1].end) < last)) {
      const int end[2] = {keys[0].end - column, keys[1].end - column};
#pragma unroll
      for (int i = from; i < to; i++)
        if (8 * (i / 4) + i % 2 >= end[(i / 2) % 2]) scores[i] = -INFINITY;
    }
    if (__any_sync(~0u, max_of(keys[0].begin, keys[1].begin) > first)) {
      const int begin[2] = {keys[0].begin - column, keys[1].begin - column};
#pragma unroll
      for (int i = from; i < to; i++)
        if (8 * (i / 4) + i % 2 < begin[(i / 2) % 2]) scores[i] = -INFINITY;
    }
  }
  return seen;
}

// The same for both halves.
template <int count>
__device__ __forceinline__ SeenHalves mask_halves(float (&scores)[count], const Interval (&keys)[2], int key) {
  const bool left = mask_part<0, count / 2>(scores, keys, key);
  const bool right = mask_part<count / 2, count>(scores, keys, key);
  return {left, right};
}

}  // namespace fattn::gpu::tile
