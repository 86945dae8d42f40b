// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/address.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/sm90/backward_varlen.cuh"

namespace fattn::gpu::sm90 {

// The thread that hands a block its items one after the other. It asks for the next when all of an item is loaded:
// early enough that nobody waits, late enough that the last items go to the blocks that are free. Tickets number the
// items in the order in which they are begun: blocks that take turns never wait for one that has a larger number. In
// teams each block has items of its own.
template <class Traits>
struct BackwardItems {
  static constexpr BackwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  Shared& memory;

  __device__ __forceinline__ void run() const {
    int own = blockIdx.x;
#pragma unroll 1
    for (int n = 0;; n++) {
      const int slot = n & 1;
      ptx::mbarrier_wait(ptx::shared_address(&memory.items.empty[slot]), (n / 2 & 1) ^ 1);
      if (n > 0) ptx::mbarrier_wait(ptx::shared_address(&memory.items.wanted), (n - 1) & 1);
      const int items = params.schedule.items;
      memory.item[slot].key = -1;
      if (tile.wide && !Traits::Source::kVarlen && params.schedule.workers > 0) {
        for (; own < items && memory.item[slot].key < 0; own += gridDim.x) publish(own, slot);
        if constexpr (tile.wide) memory.turns[slot] = TeamTurns(params.schedule, memory.item[slot]);
      } else {
        const int ticket = atomicAdd(params.rows.ticket, 1);
        if (ticket < items) publish(ticket, slot);
      }
      ptx::mbarrier_arrive(ptx::shared_address(&memory.items.full[slot]));
      if (memory.item[slot].key < 0) return;
    }
  }

  __device__ __forceinline__ void publish(int ticket, int slot) const {
    memory.item[slot] = find_item<tile>(params.source, params, memory.place[slot], ticket);
    if constexpr (!tile.wide) {
      const int key = memory.item[slot].key;
      const auto mask = bound_mask(params.source, params.mask, memory.place[slot]);
#pragma unroll 1
      for (int part = 0; part < Shared::kParts; part++)
        memory.own[slot][part] = BackwardSchedule::query_tiles(mask, key + 64 * part, tile.m, 64);
    }
  }
};

// The same for those who take them: in turn, each with the number of items before it.
template <class Shared>
struct BackwardItemReader {
  Shared& memory;
  int n = 0;

  __device__ __forceinline__ const BackwardItem& wait() const {
    ptx::mbarrier_wait(ptx::shared_address(&memory.items.full[n & 1]), n / 2 & 1);
    return memory.item[n & 1];
  }
  __device__ __forceinline__ void done() {
    ptx::mbarrier_arrive(ptx::shared_address(&memory.items.empty[n & 1]));
    n++;
  }
};

// For threads beside the loader: step(round, item, walk) for each query tile of each item, then
// finished(rounds so far) before the item is given back.
template <class Params, class Shared, class Step, class Finished>
__device__ __forceinline__ void each_query_tile(const Params& params, Shared& memory, const Step& step,
                                                const Finished& finished) {
  int round = 0;
#pragma unroll 1
  for (BackwardItemReader<Shared> items{memory};;) {
    const BackwardItem& item = items.wait();
    if (item.key < 0) return;
    const int end = round + (item.queries.end - item.queries.begin) * params.source.heads_per_kv;
    QueryWalk walk(item, params.source.heads_per_kv);
#pragma unroll 1
    for (; round < end; round++) {
      step(round, item, walk);
      walk.advance();
    }
    finished(end);
    items.done();
  }
}

}  // namespace fattn::gpu::sm90
