// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "emulated_gpu/block.hpp"

// The same as src/cuda/ptx/fence.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

inline void fence_proxy_async() { emulated_gpu::fence_async(); }
inline void fence_proxy_async_global() { emulated_gpu::fence_async(); }
inline void fence_mbarrier_init() {}

}  // namespace fattn::gpu::ptx
