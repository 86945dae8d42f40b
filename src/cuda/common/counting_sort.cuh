// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the lists of tiles share: a counting sort by classes of cost, the dearest first.
namespace fattn::gpu {

inline constexpr int kClasses = 64;

// By one thread: the size of each class becomes the place of its first entry. Returns how many entries there are.
__device__ inline int sizes_to_places(int (&classes)[kClasses]) {
  int before = 0;
  for (int& place : classes) {
    const int here = place;
    place = before;
    before += here;
  }
  return before;
}

}  // namespace fattn::gpu
