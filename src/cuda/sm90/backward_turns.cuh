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

// Where the computing warpgroups add their parts themselves, for wide heads: the second comes to a step's dQ first, the
// first when the second is at the next step's. Each part has turns of its own, taken and passed on in that order.

// Lets a warpgroup add when it is the key tile's turn, and leaves the turn's number for whoever passes it on.
template <class Traits>
struct BackwardTakeTurns {
  static constexpr BackwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  Shared& memory;

  __device__ __forceinline__ void run() const {
    int* late = nullptr;  // the first part of the step before
    int late_number = 0;
    each_query_tile(
        params, memory,
        [&](int step, const BackwardItem& item, const QueryWalk& walk) {
          int* const turn = params.rows.turns + part_of<tile>(params.rows, item, walk);
          const int number = turn_number(item, walk);
          if (late != nullptr) take(0, step - 1, late, late_number);
          take(1, step, turn + 1, number);
          late = turn, late_number = number;
        },
        [&](int steps) {
          if (late != nullptr) take(0, steps - 1, late, late_number);
          late = nullptr;
        });
  }

  // How many key tiles add before this one.
  __device__ __forceinline__ int turn_number(const BackwardItem& item, const QueryWalk& walk) const {
    if constexpr (!Traits::Source::kVarlen) {
      if (params.schedule.workers > 0) {
        const int slot = &item == &memory.item[1], query = walk.tile * tile.m;
        const auto mask = bound_mask(params.source, params.mask, memory.place[slot]);
        const int past = min_of(query + tile.m, params.source.seqlen_q);
        return memory.turns[slot].at(walk.tile, mask.tiles(query, past, tile.n));
      }
    }
    return item.key_tile;
  }

  __device__ __forceinline__ void take(int part, int step, const int* turn, int number) const {
    while (ptx::load_acquire(turn) != number) {  // beside the step before
    }
    ptx::mbarrier_wait(ptx::shared_address(&memory.turn_empty[part]), (step & 1) ^ 1);
    memory.turn_number[part] = number;
    ptx::mbarrier_arrive(ptx::shared_address(&memory.turn_full[part]));
  }
};

// Passes turns on. The fence waits for all that the block has on its way to memory, two microseconds under load: here
// nobody else waits for it, and both parts share one.
template <class Traits>
struct BackwardPassBothTurns {
  static constexpr BackwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  Shared& memory;

  __device__ __forceinline__ void run() const {
    int* late = nullptr;
    each_query_tile(
        params, memory,
        [&](int step, const BackwardItem& item, const QueryWalk& walk) {
          int* const turn = params.rows.turns + part_of<tile>(params.rows, item, walk);
          const int late_number = late != nullptr ? wait(0, step - 1) : 0, number = wait(1, step);
          ptx::fence_device();
          if (late != nullptr) ptx::store_relaxed(late, late_number + 1);
          ptx::store_relaxed(turn + 1, number + 1);
          late = turn;
        },
        [&](int steps) {
          if (late == nullptr) return;
          const int number = wait(0, steps - 1);
          ptx::fence_device();
          ptx::store_relaxed(late, number + 1);
          late = nullptr;
        });
  }

  // Until the part is added; the number of its turn.
  __device__ __forceinline__ int wait(int part, int step) const {
    ptx::mbarrier_wait(ptx::shared_address(&memory.turn_done[part]), step & 1);
    const int number = memory.turn_number[part];
    ptx::mbarrier_arrive(ptx::shared_address(&memory.turn_empty[part]));
    return number;
  }
};

}  // namespace fattn::gpu::sm90
