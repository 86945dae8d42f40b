// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace fattn::gpu::ptx {

// Shared-memory instructions take 32-bit addresses of their own space.
__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

}  // namespace fattn::gpu::ptx
