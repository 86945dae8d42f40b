// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Copies of plain bytes by the copy engine. Addresses and sizes are multiples of 16. Commit and wait as for tma_store.
namespace fattn::gpu::ptx {

// The bytes are counted on `barrier`.
__device__ __forceinline__ void bulk_load(std::uint32_t to, const void* from, int bytes, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

// Writes to global memory.
__device__ __forceinline__ void bulk_store(void* to, std::uint32_t from, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
               : "memory");
}

// Adds floats of shared memory to floats of global memory, each addition atomic.
__device__ __forceinline__ void bulk_add(float* to, std::uint32_t from, int bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to), "r"(from),
               "r"(bytes)
               : "memory");
}

}  // namespace fattn::gpu::ptx
