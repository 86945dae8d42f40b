// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "emulated_gpu/block.hpp"

// The same as src/cuda/ptx/address.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

inline std::uint32_t shared_address(const void* pointer) { return emulated_gpu::shared_address(pointer); }
inline unsigned char* dynamic_shared() { return emulated_gpu::dynamic_shared(); }

}  // namespace fattn::gpu::ptx
