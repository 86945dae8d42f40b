// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/forward_params.hpp"
#include "cuda/sm90/scheduler.cuh"
#include "cuda/tile/pipeline.cuh"

namespace fattn::gpu::sm90 {

// The loading thread: hands out items and keeps the rings of key and value tiles full. Keys run one tile ahead of
// values, across items, because the next item's first scores start beside this item's last values.
template <class Traits>
struct ForwardLoad {
  static constexpr ForwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;
  using Params = typename Traits::Params;
  static constexpr int kBytesK = sizeof(Shared::k[0]), kBytesV = sizeof(Shared::v[0]);
  static constexpr int kBytesQ = sizeof(Shared::q) / tile.compute_warpgroups();

  const Params& params;
  Shared& memory;
  std::uint32_t shared;
  int slot = 0;
  tile::RingPosition<1> q_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, q_barriers))};
  tile::RingPosition<tile.k_stages> k_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, k_barriers))};
  tile::RingPosition<tile.v_stages> v_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, v_barriers))};

  __device__ __forceinline__ void keys(int row, int head, int batch) {
    k_ring.wait_empty();
    ptx::mbarrier_arrive_expect(k_ring.full(), kBytesK);
    ptx::tma_load(shared + offsetof(Shared, k) + k_ring.stage() * kBytesK, &params.source.k, k_ring.full(),
                  {{0, row, 0, head, batch}});
    k_ring.advance();
  }

  __device__ __forceinline__ void values(int row, int head, int batch) {
    v_ring.wait_empty();
    ptx::mbarrier_arrive_expect(v_ring.full(), kBytesV);
    ptx::tma_load(shared + offsetof(Shared, v) + v_ring.stage() * kBytesV, &params.source.v, v_ring.full(),
                  {{0, row, 0, head, batch}});
    v_ring.advance();
  }

  __device__ __forceinline__ void queries(const Item& item) {
    ptx::mbarrier_arrive_expect(q_ring.full(), sizeof(Shared::q));
    for (int w = 0; w < tile.compute_warpgroups(); w++)
      ptx::tma_load(shared + offsetof(Shared, q) + w * kBytesQ, &params.source.q, q_ring.full(),
                    {{0, item.row + 64 * w, 0, item.head, item.batch}});
  }

  // Hands the next item to the computing warps, when they have read the queries of the one before it.
  __device__ __forceinline__ Item publish(const ItemQueue& queue) {
    Item item = queue.item(tile.m);
    if (item.row >= 0) {
      const auto mask = params.mask.bind(params.source.seqlen_q, params.source.seqlen_k);
      item.tiles = walk_tiles(mask, item.row, min_of(item.row + tile.m, params.source.seqlen_q), tile.n);
    }
    q_ring.wait_empty();
    memory.items[slot] = item;
    slot = slot + 1 == Shared::kItems ? 0 : slot + 1;
    if (item.row >= 0) {
      queries(item);
    } else {
      ptx::mbarrier_arrive(q_ring.full());
    }
    q_ring.advance();
    return item;
  }

  __device__ __forceinline__ void run() {
    ItemQueue queue{params.schedule, params.counters};
    bool values_due = false;  // values of the last key tile
    int due_row = 0, due_head = 0, due_batch = 0;
    Item item = publish(queue), next{};
    while (item.row >= 0) {
      queue.ask();  // early: the answer takes about a microsecond
      const int head = item.head / params.source.heads_per_kv;
      // Before the wait for a stage for the last key tile, so that the next queries arrive in time (+4 % at 512 keys).
      // An item of one tile must have its keys first: the computing warps read its queries beside them.
      const bool early = item.tiles.end - item.tiles.begin > 1;
      for (int j = item.tiles.end - 1; j >= item.tiles.begin; j--) {
        if (early && j == item.tiles.begin) next = publish(queue);
        const int row = j * tile.n - params.source.first_key;
        keys(row, head, item.batch);
        if (values_due) values(due_row, due_head, due_batch);
        values_due = true, due_row = row, due_head = head, due_batch = item.batch;
      }
      if (!early) next = publish(queue);
      item = next;
    }
    if (values_due) values(due_row, due_head, due_batch);
    queue.finish();
  }
};

}  // namespace fattn::gpu::sm90
