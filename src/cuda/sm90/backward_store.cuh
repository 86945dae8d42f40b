// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/ptx/bulk.cuh"
#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/global.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/named_barrier.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/backward_varlen.cuh"
#include "cuda/sm90/barriers.hpp"
#include "cuda/tile/fragment.cuh"

namespace fattn::gpu::sm90 {

// A thread beside the loader, one for each computing warpgroup: adds the part of dQ that the warpgroup has staged to
// the sums in memory. With turns, key tiles add in their order, so that the sums have the same bits every time.
template <class Traits>
struct BackwardAdd {
  static constexpr BackwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  Shared& memory;
  std::uint32_t shared;
  int part;

  __device__ __forceinline__ int index_of(const BackwardItem& item, const QueryWalk& walk) const {
    return (item.first_tile + walk.head * params.rows.query_tiles + walk.tile) * Shared::kParts + part;
  }

  __device__ __forceinline__ void run() {
    const BackwardItem item = memory.item;
    const int steps = (item.queries.end - item.queries.begin) * params.source.heads_per_kv;
    if (steps == 0) return;
    int* const turns = params.rows.turns;
    const std::uint32_t full = ptx::shared_address(&memory.dq_full[part]);
    const std::uint32_t empty = ptx::shared_address(&memory.dq_empty[part]);
    const std::uint32_t staging = ptx::shared_address(memory.dq[part]);
    QueryWalk walk(item, params.source.heads_per_kv);
    int done = -1;
    ptx::mbarrier_wait(full, 0);  // the first round holds nothing: products come one step late
    ptx::mbarrier_arrive(empty);
#pragma unroll 1
    for (int round = 1; round <= steps; round++) {
      const int index = index_of(item, walk);
      const int turn = turns == nullptr ? 0 : ptx::load_relaxed(turns + index);  // early: the answer takes a while
      ptx::mbarrier_wait(full, round & 1);
      if (turns != nullptr) {
        pass(turns, done, item.key_tile);  // a round late, when there is nothing left to wait for
        if (turn != item.key_tile) {
          while (ptx::load_acquire(turns + index) != item.key_tile) {
          }
        }
        ptx::fence_proxy_async_all();
      }
      ptx::bulk_add(params.rows.dq + static_cast<long long>(index) * (64 * tile.part_columns()), staging,
                    sizeof(Shared::dq[0]));
      ptx::tma_store_commit();
      ptx::tma_store_wait_read<0>();
      ptx::mbarrier_arrive(empty);
      walk.advance();
      done = index;
    }
    if (turns != nullptr) {
      pass(turns, done, item.key_tile);
    } else {
      ptx::tma_store_wait<0>();
    }
  }

  // The key tile after this one may add to a part.
  __device__ __forceinline__ static void pass(int* turns, int index, int key_tile) {
    if (index < 0) return;
    ptx::tma_store_wait<0>();
    ptx::store_release(turns + index, key_tile + 1);
  }
};

// A block's keys, slice by slice; those past the end are left out.
template <int rows, int columns>
__device__ __forceinline__ void store_keys(const CUtensorMap& map, std::uint32_t from, ptx::Box5 box) {
  using Rows = tile::SwizzledTile<rows, columns>;
#pragma unroll
  for (int slice = 0; slice < Rows::kSlices; slice++) {
    box.at[0] = 64 * slice;
    ptx::tma_store(&map, from + slice * Rows::kSliceBytes, box);
  }
}

// Writes dK and dV of a block, through the shared memory that held K and V.
template <class Traits>
struct BackwardStore {
  static constexpr BackwardTile tile = Traits::tile;
  using Element = typename Traits::Element;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  const Shared& memory;
  std::uint32_t shared;
  int warpgroup;

  __device__ __forceinline__ void operator()(const BackwardItem& item, float (&dk)[tile.d / 2],
                                             float (&dv)[tile.d / 2]) const {
    const int row = 64 * warpgroup + 16 * (threadIdx.x / 32 % 4);
    const float scale[2] = {params.score.scale, params.score.scale};
    tile::scale_rows(dk, scale);
    // The other warpgroups may still read K, for dQ, but not this one's part of V.
    ptx::named_barrier_sync(static_cast<int>(BackwardBarrier::warps) + warpgroup, 128);
    tile::store_accumulator<Element, tile.n, tile.d>(dv, shared + offsetof(Shared, v), row);
    ptx::named_barrier_sync(static_cast<int>(BackwardBarrier::compute), 128 * tile.compute_warpgroups());
    tile::store_accumulator<Element, tile.n, tile.d>(dk, shared + offsetof(Shared, k), row);
    ptx::fence_proxy_async();
    ptx::named_barrier_sync(static_cast<int>(BackwardBarrier::compute), 128 * tile.compute_warpgroups());
    if (warpgroup == 0 && threadIdx.x % 128 == 0) {
      const ptx::Box5 box = key_gradient_box(params.source, memory.place, item, tile.n);
      store_keys<tile.n, tile.d>(params.source.dv, shared + offsetof(Shared, v), box);
      store_keys<tile.n, tile.d>(params.source.dk, shared + offsetof(Shared, k), box);
      ptx::tma_store_commit();
      ptx::tma_store_wait<0>();  // the copy engine reads this block's shared memory until then
    }
  }
};

}  // namespace fattn::gpu::sm90
