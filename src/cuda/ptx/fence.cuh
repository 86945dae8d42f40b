// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fattn::gpu::ptx {

// Ordinary writes to shared memory before it are seen by the copy engine and the tensor cores after it.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The same for global memory, in both directions. (For all memory it would wait for all that the block has on its way.)
__device__ __forceinline__ void fence_proxy_async_global() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

// Initialised mbarriers are seen by the copy engine and by other blocks of the cluster.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

}  // namespace fattn::gpu::ptx
