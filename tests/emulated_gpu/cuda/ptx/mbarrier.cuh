// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "emulated_gpu/block.hpp"

// The same as src/cuda/ptx/mbarrier.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

inline void mbarrier_init(std::uint32_t barrier, int arrivals) { emulated_gpu::mbarrier_init(barrier, arrivals); }
inline void mbarrier_arrive(std::uint32_t barrier) { emulated_gpu::mbarrier_arrive(barrier, 0); }
inline void mbarrier_arrive_expect(std::uint32_t barrier, std::uint32_t bytes) {
  emulated_gpu::mbarrier_arrive(barrier, bytes);
}
inline void mbarrier_wait(std::uint32_t barrier, std::uint32_t parity) { emulated_gpu::mbarrier_wait(barrier, parity); }

}  // namespace fattn::gpu::ptx
