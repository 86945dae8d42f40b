// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/bulk.cuh"
#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/global.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/backward_items.cuh"

namespace fattn::gpu::sm90 {

// Where the first part of dQ's sums of a step's query tile lies, in parts.
template <BackwardTile tile>
__device__ __forceinline__ int part_of(const BackwardRows& rows, const BackwardItem& item, const QueryWalk& walk) {
  return (item.first_tile + walk.head * rows.query_tiles + walk.tile) * tile.compute_warpgroups();
}

// Adds a part of dQ that is staged, or writes it, and gives the staging buffer back.
template <BackwardTile tile, class Shared>
__device__ __forceinline__ void add_part(const BackwardRows& rows, Shared& memory, int index, int part, bool write) {
  const std::uint32_t staging = ptx::shared_address(memory.dq[part]);
  float* const to = rows.dq + static_cast<long long>(index) * (64 * tile.part_columns());
  if (write) {
    ptx::bulk_store(to, staging, sizeof(Shared::dq[0]));
  } else {
    ptx::bulk_add(to, staging, sizeof(Shared::dq[0]));
  }
  ptx::tma_store_commit();
  ptx::tma_store_wait_read<0>();
  ptx::mbarrier_arrive(ptx::shared_address(&memory.dq_empty[part]));
}

// A thread beside the loader, one for each computing warpgroup: adds the part of dQ that the warpgroup has staged to
// the sums in memory, in any order.
template <class Traits>
struct BackwardAdd {
  static constexpr BackwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  Shared& memory;
  int part;

  __device__ __forceinline__ void run() const {
    each_query_tile(
        params, memory,
        [this](int round, const BackwardItem& item, const QueryWalk& walk) {
          add(round, part_of<tile>(params.rows, item, walk) + part);
        },
        [](int) {});
  }

  __device__ __forceinline__ void add(int round, int index) const {
    int* const turn = params.rows.turns + index;
    const int early = ptx::load_relaxed(turn);  // the answer takes a while
    ptx::mbarrier_wait(ptx::shared_address(&memory.dq_full[part]), round & 1);
    const bool first = claim(turn, early);
    add_part<tile>(params.rows, memory, index, part, first);
    if (first) {
      ptx::tma_store_wait<0>();
      ptx::store_release(turn, 1);
    }
  }

  // Whoever comes first writes, the others wait until that is done.
  __device__ __forceinline__ bool claim(int* turn, int seen) const {
    if (seen == 1) return false;
    seen = atomicMax(turn, 0);
    if (seen < 0) return true;
    while (seen != 1) seen = ptx::load_acquire(turn);
    ptx::fence_proxy_async_global();
    return false;
  }
};

// 64 keys of a block, slice by slice, each so many bytes from the other; those past the end are left out.
template <int columns>
__device__ __forceinline__ void store_keys(const CUtensorMap& map, std::uint32_t from, int slice_bytes, ptx::Box5 box,
                                           int slices) {
#pragma unroll
  for (int slice = 0; slice < columns / 64; slice++) {
    if (slice >= slices) break;
    box.at[0] = 64 * slice;
    ptx::tma_store(&map, from + slice * slice_bytes, box);
  }
}

}  // namespace fattn::gpu::sm90
