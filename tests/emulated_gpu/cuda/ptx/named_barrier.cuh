// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "emulated_gpu/block.hpp"

// The same as src/cuda/ptx/named_barrier.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

inline void named_barrier_sync(int id, int threads) { emulated_gpu::named_barrier(id, threads, true); }
inline void named_barrier_arrive(int id, int threads) { emulated_gpu::named_barrier(id, threads, false); }

}  // namespace fattn::gpu::ptx
