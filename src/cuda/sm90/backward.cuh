// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/address.cuh"
#include "cuda/ptx/dependents.cuh"
#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/setmaxnreg.cuh"
#include "cuda/sm90/backward_compute.cuh"
#include "cuda/sm90/backward_items.cuh"
#include "cuda/sm90/backward_load.cuh"
#include "cuda/sm90/backward_params.hpp"
#include "cuda/sm90/backward_store.cuh"
#include "cuda/sm90/backward_turns.cuh"
#include "cuda/sm90/backward_varlen.cuh"
#include "cuda/sm90/backward_wide.cuh"

// The backward kernel for Hopper. Read next: backward_config.hpp (shapes), backward_schedule.hpp (work),
// backward_load.cuh, backward_compute.cuh, backward_store.cuh; backward_rows.cuh has the kernels before and after it;
// docs/sm90_backward.md tells the whole schedule.
namespace fattn::gpu::sm90 {

template <BackwardTile tile, class Shared>
__device__ __forceinline__ void init_barriers(Shared& memory) {
  constexpr int warps = 4 * tile.compute_warpgroups();  // one lane of each computing warp arrives
  const auto init = [](std::uint64_t& barrier, int arrivals) {
    ptx::mbarrier_init(ptx::shared_address(&barrier), arrivals);
  };
  constexpr int parts = tile.compute_warpgroups();  // of dQ: as many threads add them
  for (std::uint64_t& barrier : memory.items.full) init(barrier, 1);
  for (std::uint64_t& barrier : memory.items.empty) init(barrier, 1 + parts + warps);
  init(memory.items.wanted, 1);
  init(memory.k_full, 1), init(memory.v_full, 1);
  init(memory.k_empty, tile.wide ? 1 : warps), init(memory.v_empty, tile.wide ? 1 : tile.compute_warpgroups());
  for (int stage = 0; stage < tile.stages; stage++) {
    init(memory.q_full[stage], 1), init(memory.dout_full[stage], 1);
    init(memory.q_empty[stage], warps), init(memory.dout_empty[stage], warps);
  }
  if constexpr (tile.wide) {
    for (std::uint64_t& barrier : memory.ds_full) init(barrier, 4);
    for (std::uint64_t& barrier : memory.turn_full) init(barrier, 1);
    for (std::uint64_t& barrier : memory.turn_done) init(barrier, 4);
    for (std::uint64_t& barrier : memory.turn_empty) init(barrier, 1);
    init(memory.weights_full, 4), init(memory.weights_empty, 4);
  } else {
    for (std::uint64_t& barrier : memory.ds_full) init(barrier, warps);
    for (std::uint64_t& barrier : memory.dq_full) init(barrier, 4);
    for (std::uint64_t& barrier : memory.dq_empty) init(barrier, 1);
    memory.added = 0;
  }
  ptx::fence_mbarrier_init();
}

// A block takes one tile of keys after the other. Warpgroup 0 asks for them, loads, and adds dQ to memory; each of the
// others owns 64 keys.
template <class Traits>
__global__ void __launch_bounds__(Traits::tile.threads(), 1)
    backward(const __grid_constant__ typename Traits::Params params) {
  constexpr BackwardTile tile = Traits::tile;
  auto& memory = *reinterpret_cast<typename Traits::Shared*>(ptx::dynamic_shared());
  const std::uint32_t shared = ptx::shared_address(&memory);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);  // uniform, and the compiler knows

  if (threadIdx.x == 0) init_barriers<tile>(memory);
  if constexpr (Traits::Source::kVarlen) clear_other_slices<tile>(params.source, memory);
  __syncthreads();
  ptx::let_next_kernel_start();
  ptx::wait_for_kernels_before();

  if (warpgroup == 0) {
    ptx::setmaxnreg_dec<tile.load_registers>();
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 != 0) return;
    if (warp == 0) {
      BackwardLoad<Traits>{params, memory, shared}.run();
    } else if (warp == 3) {
      BackwardItems<Traits>{params, memory}.run();
    } else if constexpr (tile.wide) {
      if (!params.rows.in_turn) {
        each_query_tile(
            params, memory, [](int, const BackwardItem&, const QueryWalk&) {}, [](int) {});
      } else if (warp == 1) {
        BackwardTakeTurns<Traits>{params, memory}.run();
      } else {
        BackwardPassBothTurns<Traits>{params, memory}.run();
      }
    } else if (!params.rows.in_turn) {
      BackwardAdd<Traits>{params, memory, warp - 1}.run();
    } else if (warp == 1) {
      BackwardAddInTurn<Traits>{params, memory}.run();
    } else {
      BackwardPassTurns<Traits>{params, memory}.run();
    }
  } else {
    ptx::setmaxnreg_inc<tile.compute_registers>();
    using Compute = std::conditional_t<tile.wide, BackwardWide<Traits>, BackwardCompute<Traits>>;
    Compute{params, memory, shared, warpgroup - 1}.run();
  }
}

}  // namespace fattn::gpu::sm90
