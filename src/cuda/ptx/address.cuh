// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace fattn::gpu::ptx {

// Shared-memory instructions take 32-bit addresses of their own space.
__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// The block's memory of the size it was launched with.
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  return dynamic;
}

}  // namespace fattn::gpu::ptx
