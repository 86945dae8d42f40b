// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fattn::gpu::ptx {

// Hardware barriers 0..15 of a block; `threads` counts those that sync and those that only arrive.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace fattn::gpu::ptx
