// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the lists of tiles share: a counting sort by classes of cost, the dearest first.
namespace fattn::gpu {

inline constexpr int kClasses = 64;

// By one warp: the size of each class becomes the place of its first entry. Returns how many entries there are.
__device__ inline int sizes_to_places(int (&classes)[kClasses]) {
  static_assert(kClasses == 64, "a lane has two classes");
  const int lane = threadIdx.x % 32, first = classes[2 * lane], both = first + classes[2 * lane + 1];
  int upto = both;
  for (int distance = 1; distance < 32; distance *= 2) {
    const int before = __shfl_up_sync(~0u, upto, distance);
    if (lane >= distance) upto += before;
  }
  classes[2 * lane] = upto - both;
  classes[2 * lane + 1] = upto - both + first;
  return __shfl_sync(~0u, upto, 31);
}

}  // namespace fattn::gpu
