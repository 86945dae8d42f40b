// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/sm90/schedule.hpp"

namespace fattn::gpu::sm90 {

// Hands out items to the blocks of a persistent grid. Each starts with its own, then takes the next that is left.
struct ItemQueue {
  const Schedule& schedule;
  int* counters;
  int index = blockIdx.x;

  __device__ __forceinline__ Item item(int m) const {
    if (index < schedule.items) return schedule.item(index, m);
    Item none{};
    none.row = -1;
    return none;
  }

  __device__ __forceinline__ void ask() { index = gridDim.x + atomicAdd(&counters[0], 1); }

  // The last block to finish leaves the counters zero for the next run: no launch is needed to reset them.
  __device__ __forceinline__ void finish() {
    if (atomicAdd(&counters[1], 1) != static_cast<int>(gridDim.x) - 1) return;
    counters[0] = 0;
    counters[1] = 0;
  }
};

}  // namespace fattn::gpu::sm90
