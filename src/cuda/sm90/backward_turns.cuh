// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/shared.cuh"
#include "cuda/sm90/backward_store.cuh"

// Additions to dQ in the order of the key tiles, so that the sums have the same bits every time: threads beside the
// loader. A query tile has one turn for all parts of its sums, where its first part's is.
namespace fattn::gpu::sm90 {

// Adds what the computing warpgroups have staged when it is the key tile's turn.
template <class Traits>
struct BackwardAddInTurn {
  static constexpr BackwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  Shared& memory;

  __device__ __forceinline__ void run() const {
    each_query_tile(
        params, memory,
        [this](int round, const BackwardItem& item, const QueryWalk& walk) {
          add(round, part_of<tile>(params.rows, item, walk), item.key_tile);
        },
        [this](int rounds) { say_complete(rounds); });
  }

  // All additions of earlier rounds: said before this thread waits for another block.
  __device__ __forceinline__ void say_complete(int rounds) const {
    ptx::tma_store_wait<0>();
    ptx::store_shared_release(ptx::shared_address(&memory.added), rounds);
  }

  __device__ __forceinline__ void add(int round, int index, int key_tile) const {
    const int* const turn = params.rows.turns + index;
    int seen = ptx::load_acquire(turn);  // the answer takes a while
    say_complete(round);
#pragma unroll 1
    for (int part = 0; part < Shared::kParts; part++) {
      ptx::mbarrier_wait(ptx::shared_address(&memory.dq_full[part]), round & 1);
      if (part == 0) {
        while (seen != key_tile && seen != ~key_tile) seen = ptx::load_acquire(turn);
        ptx::fence_proxy_async_global();
      }
      add_part<tile>(params.rows, memory, index + part, part, seen < 0);
    }
  }
};

// Passes turns on. A release waits for all that the block has on its way to memory; here nobody else waits for it.
template <class Traits>
struct BackwardPassTurns {
  static constexpr BackwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  Shared& memory;

  __device__ __forceinline__ void run() const {
    each_query_tile(
        params, memory,
        [this](int round, const BackwardItem& item, const QueryWalk& walk) {
          while (static_cast<int>(ptx::load_shared_acquire(ptx::shared_address(&memory.added))) <= round) ptx::pause();
          ptx::store_release(params.rows.turns + part_of<tile>(params.rows, item, walk), item.key_tile + 1);
        },
        [](int) {});
  }
};

// Where a computing warpgroup adds its part itself: the thread keeps the part's turns.
template <class Traits>
struct BackwardTurns {
  static constexpr BackwardTile tile = Traits::tile;
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
      int* const turn = params.rows.turns + part_of<tile>(params.rows, item, walk) + part;
      while (ptx::load_acquire(turn) != item.key_tile) {
      }
      ptx::mbarrier_arrive(ptx::shared_address(&memory.turn_full[part]));
      ptx::mbarrier_wait(ptx::shared_address(&memory.turn_done[part]), step & 1);
      ptx::store_release(turn, item.key_tile + 1);
      walk.advance();
    }
  }
};

}  // namespace fattn::gpu::sm90
