// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/sm90/schedule.hpp"

namespace fattn::gpu::sm90 {

// Hands out items to the blocks of a persistent grid, each of which starts with its own.
struct ItemQueue {
  int items;
  int queued;  // a block takes the next that is left, else every gridDim.x-th
  int* counters;
  int index = blockIdx.x;

  __device__ __forceinline__ bool done() const { return index >= items; }

  __device__ __forceinline__ void ask() { index = queued ? gridDim.x + atomicAdd(&counters[0], 1) : index + gridDim.x; }

  // The last block to finish leaves the counters zero for the next run: no launch is needed to reset them.
  __device__ __forceinline__ void finish() {
    if (!queued || atomicAdd(&counters[1], 1) != static_cast<int>(gridDim.x) - 1) return;
    counters[0] = 0;
    counters[1] = 0;
  }
};

}  // namespace fattn::gpu::sm90
