// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/address.cuh"
#include "cuda/ptx/dependents.cuh"
#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/setmaxnreg.cuh"
#include "cuda/sm90/forward_compute.cuh"
#include "cuda/sm90/forward_load.cuh"
#include "cuda/sm90/forward_params.hpp"

// The forward kernel for Hopper. Read next: forward_config.hpp (shapes), schedule.hpp (work), forward_load.cuh,
// forward_compute.cuh, forward_store.cuh; docs/sm90_forward.md tells the whole schedule.
namespace fattn::gpu::sm90 {

template <ForwardTile tile, class Shared>
__device__ __forceinline__ void init_barriers(Shared& memory, std::uint32_t shared) {
  constexpr int readers = 4 * tile.compute_warpgroups();  // one lane of each computing warp arrives
  tile::RingPosition<1>::init(shared + offsetof(Shared, item_barriers), 1);
  for (int w = 0; w < tile.compute_warpgroups(); w++) tile::RingPosition<1>::init(Shared::query_barrier(shared, w), 4);
  tile::RingPosition<tile.k_stages>::init(shared + offsetof(Shared, k_barriers), readers);
  tile::RingPosition<tile.v_stages>::init(shared + offsetof(Shared, v_barriers), readers);
  for (int stage = 0; stage < tile.v_stages; stage++)
    ptx::mbarrier_init(shared + offsetof(Shared, output_read) + 8 * stage, 1);
  for (auto& stages : memory.overflow)
    for (int& overflow : stages) overflow = 0;
  ptx::fence_mbarrier_init();
}

// A block stays on its multiprocessor and works on one item after the other. Warpgroup 0 loads; each of the others owns
// 64 query rows of the item.
template <class Traits>
__global__ void __launch_bounds__(Traits::tile.threads(), 1)
    forward(const __grid_constant__ typename Traits::Params params) {
  constexpr ForwardTile tile = Traits::tile;
  auto& memory = *reinterpret_cast<typename Traits::Shared*>(ptx::dynamic_shared());
  const std::uint32_t shared = ptx::shared_address(&memory);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);  // uniform, and the compiler knows

  if (threadIdx.x == 0) init_barriers<tile>(memory, shared);
  __syncthreads();
  if constexpr (Traits::Source::kVarlen) ptx::wait_for_kernels_before();

  if (warpgroup == 0) {
    ptx::setmaxnreg_dec<tile.load_registers>();
    if (threadIdx.x == 0) ForwardLoad<Traits>{params, memory, shared}.run();
    if (threadIdx.x == 32) ForwardFind<Traits>{params, memory, shared}.run();
  } else {
    ptx::setmaxnreg_inc<tile.compute_registers>();
    ForwardCompute<Traits>{params, memory, shared, warpgroup - 1}.run();
  }
}

}  // namespace fattn::gpu::sm90
