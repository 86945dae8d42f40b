// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/forward_dense.cuh"
#include "cuda/sm90/forward_params.hpp"
#include "cuda/sm90/forward_varlen.cuh"
#include "cuda/sm90/scheduler.cuh"
#include "cuda/tile/pipeline.cuh"

namespace fattn::gpu::sm90 {

// The thread that finds items, one ahead of the loading thread: a queue, a list of tiles and lengths are asked one
// after the other, and each answer takes about a microsecond.
template <class Traits>
struct ForwardFind {
  static constexpr ForwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  Shared& memory;
  std::uint32_t shared;
  tile::RingPosition<1> item_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, item_barriers))};

  // As each warpgroup walks the item: without the last tiles if its rows do not see them.
  __device__ __forceinline__ void own_items(const Item& item) {
    const auto mask = params.mask.bind(params.source.seqlen_q, params.source.seqlen_k);
    int common_end = item.tiles.end, end_before = 0;
#pragma unroll 1
    for (int w = 0; w < tile.compute_warpgroups(); w++) {
      Item own = item;
      const int first = item.row + 64 * w, last = min_of(first + 64, params.source.seqlen_q);
      if (first < last) own.tiles = own_walk(mask, max_of(first, 0), last, tile.n, item.tiles, end_before);
      end_before = own.tiles.end;
      if (w == 0) common_end = end_before;
      own.skipped = item.tiles.end - end_before;
      own.common_end = common_end;
      memory.own[item.slot][w] = own;
    }
  }

  __device__ __forceinline__ void run() {
    ItemQueue queue{item_count(params.source, params.schedule, tile.m), params.schedule.queued, params.counters};
    for (int slot = 0;; slot = slot + 1 == Shared::kItems ? 0 : slot + 1) {
      Item item{};
      item.head = -1;
      typename Traits::Source::Place place{};
      if (!queue.done()) item = find_item(params.source, params, place, queue.index, tile.m, tile.n);
      item.slot = slot;
      if constexpr (tile.own_tiles) own_items(item);
      memory.items[slot] = item;
      memory.places[slot] = place;
      ptx::mbarrier_arrive(item_ring.full());
      item_ring.advance();
      if (item.none()) break;
      item_ring.wait_empty();
      queue.ask();
    }
    queue.finish();
  }
};

// The loading thread keeps the rings of key and value tiles full. Keys run one tile ahead of values, across items,
// because the next item's first scores start beside this item's last values.
template <class Traits>
struct ForwardLoad {
  static constexpr ForwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;
  using Params = typename Traits::Params;

  const Params& params;
  Shared& memory;
  std::uint32_t shared;
  int slot = 0;
  int leaving = 0;                // bits of stages of values
  std::uint32_t left_parity = 0;  // of the item before
  tile::RingPosition<1> item_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, item_barriers))};
  tile::RingPosition<tile.k_stages> k_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, k_barriers))};
  tile::RingPosition<tile.v_stages> v_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, v_barriers))};

  // All columns of `rows` rows, at once where the map is of slices, else a slice of 64 columns at a time.
  template <int rows, int columns>
  __device__ __forceinline__ static void load(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier,
                                              ptx::Box5 box, bool slices) {
    using Tile = tile::SwizzledTile<rows, columns>;
    if (slices) return ptx::tma_load(to, &map, barrier, {{0, box.at[2], 0, box.at[3], box.at[4]}});
#pragma unroll
    for (int slice = 0; slice < Tile::kSlices; slice++) {
      box.at[0] = 64 * slice;
      ptx::tma_load(to + slice * Tile::kSliceBytes, &map, barrier, box);
    }
  }

  __device__ __forceinline__ void keys(const ptx::Box5& box) {
    k_ring.wait_empty();
    ptx::mbarrier_arrive_expect(k_ring.full(), Shared::kBytesK);
    load<tile.n, tile.d>(shared + offsetof(Shared, k) + k_ring.stage() * Shared::kBytesK, params.source.k,
                         k_ring.full(), box, params.source.slices);
    k_ring.advance();
  }

  // The output of the item before leaves through the stages of values: until then `leaving` has a bit for each.
  __device__ __forceinline__ void wait_left(int stage) {
    if (!(leaving >> stage & 1)) return;
    ptx::mbarrier_wait(shared + offsetof(Shared, output_read) + 8 * stage, left_parity);
    leaving ^= 1 << stage;
  }

  __device__ __forceinline__ void values(const ptx::Box5& box) {
    v_ring.wait_empty();
    if constexpr (tile.output == OutputWay::values) wait_left(v_ring.stage());
    ptx::mbarrier_arrive_expect(v_ring.full(), Shared::kBytesV);
    load<tile.n, tile.dv>(shared + offsetof(Shared, v) + v_ring.stage() * Shared::kBytesV, params.source.v,
                          v_ring.full(), box, params.source.slices);
    v_ring.advance();
  }

  __device__ __forceinline__ Item take() {
    item_ring.wait_full();
    const Item item = memory.items[slot];
    ptx::mbarrier_arrive(item_ring.empty(0));
    item_ring.advance();
    slot = slot + 1 == Shared::kItems ? 0 : slot + 1;
    return item;
  }

  // Hands the item to the computing warps, to each warpgroup when it has read its queries of the one before.
  __device__ __forceinline__ void hand_over(const Item& item) {
#pragma unroll
    for (int w = 0; w < tile.compute_warpgroups(); w++) {
      const std::uint32_t full = Shared::query_barrier(shared, w), empty = full + 8;
      ptx::mbarrier_wait(empty, Shared::parity(item.slot) ^ 1);
      if (item.none()) {
        ptx::mbarrier_arrive(full);
        continue;
      }
      ptx::mbarrier_arrive_expect(full, Shared::kBytesQ);
      load<64, tile.d>(shared + offsetof(Shared, q) + w * Shared::kBytesQ, params.source.q, full,
                       query_box(params.source, item, memory.places[item.slot], 64 * w),
                       !Traits::Source::kVarlen && params.source.slices);
    }
  }

  // Queries that go to registers are asked for before the last key tile, so that the next item's arrive in time (+4 %
  // at 512 keys); but an item of one tile must have its keys first, because the computing warps read its queries beside
  // them. Queries that stay in shared memory are needed until the last scores are there: by then the next item's first
  // keys and this one's last values are on their way.
  __device__ __forceinline__ void run() {
    bool values_due = false;  // values of the last key tile
    ptx::Box5 due{};
    Item item = take(), next{};
    if constexpr (tile.q_registers) hand_over(item);
    while (!item.none()) {
      ptx::Box5 box = key_box(params.source, item, memory.places[item.slot]);
      const int first_key = box.at[2];
      const bool early = tile.q_registers && item.tiles.end - item.tiles.begin > 1;
      for (int j = item.tiles.end - 1; j >= item.tiles.begin; j--) {
        if (early && j == item.tiles.begin) {
          next = take();
          hand_over(next);
        }
        box.at[2] = first_key + j * tile.n;
        keys(box);
        if (values_due) values(due);
        values_due = true, due = box;
        if constexpr (!tile.q_registers)
          if (j == item.tiles.end - 1) first_keys_are_asked_for(item);
      }
      if (!early) {
        next = take();
        if constexpr (tile.q_registers) hand_over(next);
      }
      item = next;
    }
    if (values_due) values(due);
    if constexpr (!tile.q_registers) hand_over(item);
  }

  // Of an item whose queries stay in shared memory. The item before has all its tiles.
  __device__ __forceinline__ void first_keys_are_asked_for(const Item& item) {
    hand_over(item);
    if constexpr (tile.output == OutputWay::values) {
      leaving = 3;
      left_parity = Shared::parity(item.slot) ^ 1;  // of the item before; where there is none the wait returns at once
      // One tile takes one stage; the other must not fall behind.
      if (item.tiles.end - item.tiles.begin == 1) wait_left(0), wait_left(1);
    }
  }
};

}  // namespace fattn::gpu::sm90
