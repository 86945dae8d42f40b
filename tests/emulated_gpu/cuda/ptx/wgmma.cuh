// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/ptx/arithmetic.cuh"
#include "emulated_gpu/block.hpp"
#include "emulated_gpu/products.hpp"

// The same as src/cuda/ptx/wgmma.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

enum class Major : int { k = 0, mn = 1 };

inline void wgmma_fence() { emulated_gpu::meet_warp("wgmma.fence", {}); }
inline void wgmma_commit() { emulated_gpu::commit_products(); }
template <int groups>
void wgmma_wait() {
  emulated_gpu::wait_products(groups);
}

template <class Element, int n, Major major_b>
void wgmma(float (&d)[n / 2], const std::uint32_t* a, std::uint64_t b, int accumulate) {
  emulated_gpu::issue_product({n, std::is_same_v<Element, Bf16>, true, false, major_b == Major::mn}, d, a, 0, b,
                              accumulate != 0);
}
template <class Element, int n, Major major_a, Major major_b>
void wgmma(float (&d)[n / 2], std::uint64_t a, std::uint64_t b, int accumulate) {
  emulated_gpu::issue_product({n, std::is_same_v<Element, Bf16>, false, major_a == Major::mn, major_b == Major::mn}, d,
                              nullptr, a, b, accumulate != 0);
}

}  // namespace fattn::gpu::ptx
