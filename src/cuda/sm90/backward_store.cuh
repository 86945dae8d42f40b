// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/bulk.cuh"
#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/global.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/backward_items.cuh"

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
    int round = 0;
#pragma unroll 1
    for (BackwardItemReader<Shared> items{memory};;) {
      const BackwardItem& item = items.wait();
      if (item.key < 0) return;
      const int end = round + (item.queries.end - item.queries.begin) * params.source.heads_per_kv;
      add_item(item, round, end);
      round = end;
      items.done();
    }
  }

  __device__ __forceinline__ void add_item(const BackwardItem& item, int begin, int end) {
    const std::uint32_t full = ptx::shared_address(&memory.dq_full[part]);
    const std::uint32_t empty = ptx::shared_address(&memory.dq_empty[part]);
    const std::uint32_t staging = ptx::shared_address(memory.dq[part]);
    QueryWalk walk(item, params.source.heads_per_kv);
    int done = -1;
#pragma unroll 1
    for (int round = begin; round < end; round++) {
      const int index = index_of(item, walk);
      int* const turn = params.rows.turns + index;
      const int early = ptx::load_relaxed(turn);  // the answer takes a while
      ptx::mbarrier_wait(full, round & 1);
      const bool first = params.rows.in_turn ? await_turn(turn, early, item.key_tile, done) : claim(turn, early);
      float* const to = params.rows.dq + static_cast<long long>(index) * (64 * tile.part_columns());
      if (first) {
        ptx::bulk_store(to, staging, sizeof(Shared::dq[0]));
      } else {
        ptx::bulk_add(to, staging, sizeof(Shared::dq[0]));
      }
      ptx::tma_store_commit();
      ptx::tma_store_wait_read<0>();
      ptx::mbarrier_arrive(empty);
      if (params.rows.in_turn) {
        if (done >= 0) pass<1>(done, item.key_tile + 1);  // a round late: it is complete by now
        done = index;
      } else if (first) {
        pass<0>(index, 1);
      }
      walk.advance();
    }
    if (params.rows.in_turn && done >= 0) pass<0>(done, item.key_tile + 1);
  }

  // Until it is this key tile's turn. True: nothing has been added yet.
  __device__ __forceinline__ bool await_turn(int* turn, int seen, int key_tile, int& done) const {
    if (seen != key_tile && seen != ~key_tile) {
      if (done >= 0) pass<0>(done, key_tile + 1), done = -1;  // nobody waits for one who waits
      do seen = ptx::load_acquire(turn);
      while (seen != key_tile && seen != ~key_tile);
    }
    ptx::fence_proxy_async_all();
    return seen < 0;
  }

  // In any order: whoever comes first writes, the others wait until that is done.
  __device__ __forceinline__ bool claim(int* turn, int seen) const {
    if (seen == 1) return false;
    seen = atomicMax(turn, 0);
    if (seen < 0) return true;
    while (seen != 1) seen = ptx::load_acquire(turn);
    ptx::fence_proxy_async_all();
    return false;
  }

  // Says whose turn it is when all but the last `later` additions are complete.
  template <int later>
  __device__ __forceinline__ void pass(int index, int turn) const {
    ptx::tma_store_wait<later>();
    ptx::store_release(params.rows.turns + index, turn);
  }
};

// The same where a computing warpgroup adds its part itself: the thread keeps the turns.
template <class Traits>
struct BackwardTurns {
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  Shared& memory;
  int part;

  __device__ __forceinline__ void run() const {
    int step = 0;
#pragma unroll 1
    for (BackwardItemReader<Shared> items{memory};;) {
      const BackwardItem& item = items.wait();
      if (item.key < 0) return;
      const int end = step + (item.queries.end - item.queries.begin) * params.source.heads_per_kv;
      if (params.rows.in_turn) keep_turns(item, step, end);
      step = end;
      items.done();
    }
  }

  __device__ __forceinline__ void keep_turns(const BackwardItem& item, int begin, int end) const {
    QueryWalk walk(item, params.source.heads_per_kv);
#pragma unroll 1
    for (int step = begin; step < end; step++) {
      int* const turn =
          params.rows.turns + (item.first_tile + walk.head * params.rows.query_tiles + walk.tile) * 2 + part;
      while (ptx::load_acquire(turn) != item.key_tile) {
      }
      ptx::mbarrier_arrive(ptx::shared_address(&memory.turn_full[part]));
      ptx::mbarrier_wait(ptx::shared_address(&memory.turn_done[part]), step & 1);
      ptx::store_release(turn, item.key_tile + 1);
      walk.advance();
    }
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
