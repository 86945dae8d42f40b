// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/mask_band.hpp"

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

}  // namespace fattn::gpu::tile
