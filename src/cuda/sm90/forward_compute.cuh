// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/ptx/pin.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/sm90/forward_store.cuh"
#include "cuda/tile/mask.cuh"
#include "cuda/tile/pipeline.cuh"

namespace fattn::gpu::sm90 {

// One computing warpgroup: 64 query rows of each item. Tiles are walked right to left. A step starts the scores of the
// next tile and the output of the one before it, S(j) = Q K(j)^T and O += P(j+1) V(j+1), and turns S(j) into P(j) while
// the second runs. Warpgroups issue these products in turn, so that one's softmax lies beside the other's products.
template <class Traits>
struct ForwardCompute {
  static constexpr ForwardTile tile = Traits::tile;
  using Element = typename Traits::Element;
  using Shared = typename Traits::Shared;
  using Params = typename Traits::Params;
  using Queries = tile::SwizzledTile<64, tile.d>;
  using Keys = tile::SwizzledTile<tile.n, tile.d>;
  using Values = tile::SwizzledTile<tile.n, tile.dv>;

  const Params& params;
  Shared& memory;
  std::uint32_t shared;
  int warpgroup;
  tile::RingPosition<1> q_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, q_barriers))};
  tile::RingPosition<tile.k_stages> k_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, k_barriers))};
  tile::RingPosition<tile.v_stages> v_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, v_barriers))};
  ForwardStore<Traits> store{params, shared, warpgroup};
  int slot = 0;
  float output[tile.dv / 2], scores[tile.n / 2];
  std::uint32_t weights[tile.n / 4], queries[tile.d / 4];
  tile::SoftmaxRows rows;
  float factor[2];      // what the output has to be multiplied by
  float sum_before[2];  // row sums before the last tile

  __device__ __forceinline__ void arrive(std::uint32_t barrier) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(barrier);
  }

  __device__ __forceinline__ static int turn(int warpgroup) {
    return static_cast<int>(ForwardBarrier::turn) + warpgroup;
  }
  __device__ __forceinline__ void wait_turn() const { ptx::named_barrier_sync(turn(warpgroup), 256); }
  __device__ __forceinline__ void pass_turn() const {
    ptx::named_barrier_arrive(turn(warpgroup + 1 == tile.compute_warpgroups() ? 0 : warpgroup + 1), 256);
  }

  __device__ __forceinline__ Item next_item() {
    q_ring.wait_full();
    const Item item = memory.items[slot];
    slot = slot + 1 == Shared::kItems ? 0 : slot + 1;
    return item;
  }

  // Queries go to registers once an item: a third less reading of shared memory, and their buffer is free at once.
  __device__ __forceinline__ void load_queries() {
    const std::uint32_t from = shared + offsetof(Shared, q) + warpgroup * Queries::kBytes;
    tile::load_operand<64, tile.d>(queries, from, 16 * (threadIdx.x / 32 % 4));
    arrive(q_ring.empty(0));
    q_ring.advance();
    if (params.score.change_queries) {
#pragma unroll
      for (std::uint32_t& pair : queries) pair = (pair & params.score.query_and) ^ params.score.query_xor;
    }
    ptx::pin(queries);
  }

  __device__ __forceinline__ void issue_scores(int stage) {
    const std::uint32_t keys = shared + offsetof(Shared, k) + stage * Keys::kBytes;
#pragma unroll
    for (int step = 0; step < tile.d / 16; step++)
      ptx::wgmma<Element, tile.n, ptx::Major::k>(scores, queries + 4 * step, Keys::along_columns(keys, step),
                                                 step != 0);
    ptx::wgmma_commit();
  }

  __device__ __forceinline__ void issue_output(bool accumulate) {
    const std::uint32_t values = shared + offsetof(Shared, v) + v_ring.stage() * Values::kBytes;
#pragma unroll
    for (int step = 0; step < tile.n / 16; step++)
      ptx::wgmma<Element, tile.dv, ptx::Major::mn>(output, weights + 4 * step, Values::along_rows(values, step),
                                                   step != 0 || accumulate);
    ptx::wgmma_commit();
  }

  __device__ __forceinline__ void mask(const Item& item, int j) {
    const auto bound = params.mask.bind(params.source.seqlen_q, params.source.seqlen_k);
    const int row = item.row + 64 * warpgroup + 16 * (threadIdx.x / 32 % 4) + threadIdx.x % 32 / 4;
    const Interval keys[2] = {bound.visible(row), bound.visible(row + 8)};
    tile::mask_scores(scores, keys, j * tile.n);
  }

  __device__ __forceinline__ void release_keys() { arrive(k_ring.empty(k_ring.stage_before())); }

  // Called with the turn taken, so all four warps are done with the softmax of the last tile. If a weight of it
  // was 2^100 or more, does that tile again with its true maxima. Then lets the key tile go. `again` restores
  // the scores that were already on their way.
  template <bool again>
  __device__ __forceinline__ void settle() {
    volatile int& overflow = memory.overflow[warpgroup][k_ring.stage_before()];
    if (__any_sync(~0u, overflow != 0)) {
      ptx::wgmma_wait<0>();
      ptx::pin(scores);
      ptx::wgmma_fence();
      issue_scores(k_ring.stage_before());
      ptx::wgmma_wait<0>();
      ptx::pin(scores);
      rows.sum[0] = sum_before[0], rows.sum[1] = sum_before[1];
      if (tile::softmax_exact(scores, rows, factor, params.score.scale_log2)) tile::scale_rows(output, factor);
      tile::round_to_operand<Element>(weights, scores);
      store.meet();  // all have seen it
      if (threadIdx.x % 128 == 0) overflow = 0;
      ptx::pin(output), ptx::pin(scores), ptx::pin(weights);
      ptx::wgmma_fence();
      if constexpr (again) issue_scores(k_ring.stage());
    }
    release_keys();
  }

  // Weights of an item's first tile.
  __device__ __forceinline__ void weigh_first(const Item& item) {
    if (item.tiles.first_masked) mask(item, item.tiles.end - 1);
    tile::softmax_first(scores, rows, params.score.scale_log2);
  }

  // The same with its scores, on its own: only before a block's first item.
  __device__ __forceinline__ void first(const Item& item) {
    load_queries();
    k_ring.wait_full();
    ptx::pin(scores);
    ptx::wgmma_fence();
    issue_scores(k_ring.stage());
    ptx::wgmma_wait<0>();
    ptx::pin(scores);
    k_ring.advance();
    weigh_first(item);
    tile::round_to_operand<Element>(weights, scores);
  }

  // Which tiles of an item a step is for. Plain ones need no mask and no maxima; those to the right of them come before
  // any plain one, so their predecessor cannot have overflowed.
  enum class Part { right, plain, left };

  // Tile j of the item, and the output of tile j + 1.
  template <Part part>
  __device__ __forceinline__ void step(const Item& item, int j) {
    k_ring.wait_full();
    wait_turn();
    ptx::pin(output), ptx::pin(scores), ptx::pin(weights);
    ptx::wgmma_fence();
    issue_scores(k_ring.stage());
    if constexpr (part == Part::right) {
      release_keys();
    } else {
      settle<true>();
    }
    v_ring.wait_full();
    issue_output(j + 2 != item.tiles.end);
    pass_turn();
    ptx::wgmma_wait<1>();
    ptx::pin(scores);
    bool moved;
    if constexpr (part == Part::plain) {
      moved = tile::softmax_stale(scores, rows, factor, sum_before, params.score.scale_log2);
    } else {
      mask(item, j);
      moved = tile::softmax_exact(scores, rows, factor, params.score.scale_log2);
    }
    ptx::wgmma_wait<0>();
    ptx::pin(output);
    arrive(v_ring.empty(v_ring.stage()));
    v_ring.advance();
    if (moved) {
      tile::scale_rows(output, factor);
      if constexpr (part == Part::plain) {
        const bool good = rows.sum[0] < tile::kOverflow && rows.sum[1] < tile::kOverflow;
        if (!good) memory.overflow[warpgroup][k_ring.stage()] = 1;
      }
    }
    k_ring.advance();
    tile::round_to_operand<Element>(weights, scores);
  }

  // The last output of an item beside the first scores of the next.
  __device__ __forceinline__ void cross(const Item& item, const Item& next) {
    k_ring.wait_full();
    wait_turn();
    settle<false>();
    load_queries();
    ptx::pin(output), ptx::pin(scores), ptx::pin(weights);
    ptx::wgmma_fence();
    issue_scores(k_ring.stage());
    v_ring.wait_full();
    issue_output(item.tiles.end - item.tiles.begin != 1);
    pass_turn();
    ptx::wgmma_wait<1>();
    ptx::pin(scores);
    k_ring.advance();
    const tile::SoftmaxRows done = rows;
    weigh_first(next);
    ptx::wgmma_wait<0>();
    ptx::pin(output);
    arrive(v_ring.empty(v_ring.stage()));
    v_ring.advance();
    store(item, done, output);
    tile::round_to_operand<Element>(weights, scores);
  }

  // The last output of the last item.
  __device__ __forceinline__ void last(const Item& item) {
    v_ring.wait_full();
    wait_turn();
    settle<false>();
    ptx::pin(output), ptx::pin(weights);
    ptx::wgmma_fence();
    issue_output(item.tiles.end - item.tiles.begin != 1);
    pass_turn();
    ptx::wgmma_wait<0>();
    ptx::pin(output);
    arrive(v_ring.empty(v_ring.stage()));
    store(item, rows, output);
  }

  __device__ __forceinline__ void run() {
    if (warpgroup == tile.compute_warpgroups() - 1) ptx::named_barrier_arrive(turn(0), 256);
    Item item = next_item();
    if (item.row < 0) return;
    first(item);
    while (true) {
      int j = item.tiles.end - 2;
      for (; j >= item.tiles.plain_end; j--) step<Part::right>(item, j);
      for (; j >= item.tiles.plain_begin; j--) step<Part::plain>(item, j);
      for (; j >= item.tiles.begin; j--) step<Part::left>(item, j);
      const Item next = next_item();
      if (next.row < 0) break;
      cross(item, next);
      item = next;
    }
    last(item);
    store.finish();
  }
};

}  // namespace fattn::gpu::sm90
