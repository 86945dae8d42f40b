// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/ptx/pin.cuh"
#include "cuda/ptx/shared.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/sm90/forward_store.cuh"
#include "cuda/sm90/forward_varlen.cuh"
#include "cuda/tile/mask.cuh"
#include "cuda/tile/pipeline.cuh"
#include "cuda/tile/score.cuh"

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
  using Score = typename Traits::Score;
  using Source = typename Traits::Source;
  using Queries = tile::SwizzledTile<64, tile.d>;
  using Keys = tile::SwizzledTile<tile.n, tile.d>;
  using Values = tile::SwizzledTile<tile.n, tile.dv>;

  const Params& params;
  Shared& memory;
  std::uint32_t shared;
  int warpgroup;
  tile::RingPosition<tile.k_stages> k_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, k_barriers))};
  tile::RingPosition<tile.v_stages> v_ring{shared + static_cast<std::uint32_t>(offsetof(Shared, v_barriers))};
  ForwardStore<Traits> store{params, memory, shared, warpgroup};
  int slot = 0;
  int leaving = -1;  // stage of values through which the last output leaves
  float output[tile.dv / 2], scores[tile.n / 2];
  std::uint32_t weights[tile.n / 4], queries[tile.q_registers ? tile.d / 4 : 1];
  tile::SoftmaxRows rows;
  float top_logit[2];   // of the item's rows, where max_logit is asked for
  float factor[2];      // what the output has to be multiplied by
  float sum_before[2];  // row sums before the last tile
  float alarm;          // of the item's stale reference

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

  // Steps before the shortest walk's first are nobody's turn. Their warps meet all the same: a barrier on one side of a
  // branch only makes ptxas serialise the products.
  __device__ __forceinline__ static bool in_turn(const Item& item, int j) {
    return !tile.own_tiles || j + 2 <= item.common_end;
  }

  __device__ __forceinline__ const Item& own_item() const {
    if constexpr (tile.own_tiles)
      return memory.own[slot][warpgroup];
    else
      return memory.items[slot];
  }

  __device__ __forceinline__ Item next_item() {
    ptx::mbarrier_wait(Shared::query_barrier(shared, warpgroup), Shared::parity(slot));
    const Item item = own_item();
    slot = slot + 1 == Shared::kItems ? 0 : slot + 1;
    return item;
  }

  __device__ __forceinline__ std::uint32_t query_tile() const {
    return shared + static_cast<std::uint32_t>(offsetof(Shared, q)) + warpgroup * Shared::kBytesQ;
  }

  // Queries go to registers once an item: a third less reading of shared memory, and their buffer is soon free. Where
  // registers are short they stay.
  __device__ __forceinline__ void load_queries(const Item& item) {
    if constexpr (tile.q_registers) {
      tile::load_operand<64, tile.d>(queries, query_tile(), 16 * (threadIdx.x / 32 % 4));
      if constexpr (Source::kVarlen) clear_uncounted(item);
      if (params.score.change_queries) {
#pragma unroll
        for (std::uint32_t& pair : queries) pair = (pair & params.score.query_and) ^ params.score.query_xor;
      }
      ptx::pin(queries);
    } else {
      change_in_place(item);
    }
  }

  // Rows that do not count belong to another sequence or to nobody: as zeros they touch no vote of their warp.
  __device__ __forceinline__ void clear_uncounted(const Item& item) {
    if (all_count(params.source, memory.places[item.slot], item.row + 64 * warpgroup + 63)) return;
    const RowPlace at[2] = {store.place(item, 0), store.place(item, 1)};
#pragma unroll
    for (int i = 0; i < tile.d / 4; i++)
      if (!at[i % 2].counts) queries[i] = 0;
  }

  // What load_queries does to registers, for queries that stay in shared memory.
  __device__ __forceinline__ void change_in_place(const Item& item) {
    const int first = item.row + 64 * warpgroup;
    const bool keep = all_count(params.source, memory.places[item.slot], first + 63);
    if (keep && !params.score.change_queries) return;
    for (int at = 4 * (threadIdx.x % 128); at < Shared::kBytesQ; at += 4 * 128) {
      const int row = first + at % Queries::kSliceBytes / 128;
      const bool counts = row_place(params.source, item, memory.places[item.slot], row).counts;
      const std::uint32_t pair =
          (ptx::load_shared(query_tile() + at) & params.score.query_and) ^ params.score.query_xor;
      ptx::store_shared(query_tile() + at, counts ? pair : 0);
    }
    ptx::fence_proxy_async();
    store.meet();
  }

  __device__ __forceinline__ void release_queries() { arrive(Shared::query_barrier(shared, warpgroup) + 8); }

  // The arrival takes its address from every load's registers, so it waits for them. Program order is not enough, nor a
  // wgmma_fence(): ptxas puts the arrival before it, where it overtakes loads that are only begun.
  __device__ __forceinline__ void queries_are_loaded() {
    if constexpr (tile.q_registers) {
      std::uint32_t loaded = 0;
#pragma unroll
      for (int load = 0; load < tile.d / 16; load++) loaded |= queries[4 * load];
      arrive(Shared::query_barrier(shared, warpgroup) + 8 + (loaded & params.score.zero));
    }
  }

  __device__ __forceinline__ void issue_scores(int stage) {
    const std::uint32_t keys = shared + offsetof(Shared, k) + stage * Keys::kBytes;
#pragma unroll
    for (int step = 0; step < tile.d / 16; step++) {
      if constexpr (tile.q_registers)
        ptx::wgmma<Element, tile.n, ptx::Major::k>(scores, queries + 4 * step, Keys::along_columns(keys, step),
                                                   step != 0);
      else
        ptx::wgmma<Element, tile.n, ptx::Major::k, ptx::Major::k>(scores, Queries::along_columns(query_tile(), step),
                                                                  Keys::along_columns(keys, step), step != 0);
    }
    ptx::wgmma_commit();
  }

  // O += P V of key tile j, whose values are in the ring's current stage.
  __device__ __forceinline__ void issue_output(const Item& item, int j, bool accumulate) {
    const std::uint32_t values = shared + offsetof(Shared, v) + v_ring.stage() * Values::kBytes;
    if constexpr (Source::kVarlen) clear_unseen(item, j, values);
#pragma unroll
    for (int step = 0; step < tile.n / 16; step++)
      ptx::wgmma<Element, tile.dv, ptx::Major::mn>(output, weights + 4 * step, Values::along_rows(values, step),
                                                   step != 0 || accumulate);
    ptx::wgmma_commit();
  }

  // Values that no query sees may be anything, and 0 * NaN is NaN. Both warpgroups write the same zeros.
  __device__ __forceinline__ void clear_unseen(const Item& item, int j, std::uint32_t values) {
    const Interval seen = seen_values(params.source, memory.places[item.slot], j * tile.n);
    if (seen.begin <= 0 && seen.end >= tile.n) return;
#pragma unroll 1
    for (int at = threadIdx.x % 128; at < Values::kBytes / 16; at += 128) {
      const int row = at * 16 % Values::kSliceBytes / 128;
      if (row < seen.begin || row >= seen.end) ptx::clear_shared_16(values + 16 * at);
    }
    ptx::fence_proxy_async();
    store.meet();
  }

  __device__ __forceinline__ int thread_row(const Item& item) const {
    return item.row + 64 * warpgroup + 16 * (threadIdx.x / 32 % 4) + threadIdx.x % 32 / 4;
  }

  // The keys that the thread's two rows see.
  struct Visible {
    Interval keys[2];
  };
  __device__ __forceinline__ Visible visible(const Item& item) const {
    const int row = thread_row(item);
    const auto& place = memory.places[item.slot];
    return {{visible_keys(params.source, params.mask, place, row),
             visible_keys(params.source, params.mask, place, row + 8)}};
  }

  __device__ __forceinline__ void mask(const Visible& rows, int j) { tile::mask_scores(scores, rows.keys, j * tile.n); }

  // Everything between Q.K and the softmax. Gives which halves of the tile weigh something.
  __device__ __forceinline__ auto shape_scores(const Item& item, int j, bool masked) {
    Visible rows{};
    if (masked) rows = visible(item);
    return shape_scores(item, j, masked, rows);
  }

  __device__ __forceinline__ auto shape_scores(const Item& item, int j, bool masked, const Visible& rows) {
    if constexpr (tile.skip_halves) {
      return masked ? tile::mask_halves(scores, rows.keys, j * tile.n) : tile::SeenHalves{};
    } else if constexpr (Score::kModified) {
      if (params.score.max_logit != nullptr) {
        if (masked) mask(rows, j);
        float top[2];
        tile::row_tops(top, scores);
#pragma unroll
        for (int r = 0; r < 2; r++) top_logit[r] = fmaxf(top_logit[r], top[r] * params.score.raw_scale);
      }
      if (params.score.modified) modify_scores(item, j);
      if (masked) mask(rows, j);
      return tile::AllSeen{};
    } else {
      if (masked) mask(rows, j);
      return tile::AllSeen{};
    }
  }

  __device__ __forceinline__ void modify_scores(const Item& item, int j) {
    if (params.score.cap_in > 0.f)
      tile::softcap<(tile.d <= 128 ? tile.n / 2 : 8)>(scores, params.score.cap_in, params.score.cap_out,
                                                      [](int, float) {});
    else
      tile::scale(scores, params.score.raw_log2);
    if (params.score.slopes == nullptr) return;
    const auto& place = memory.places[item.slot];
    float slope[2];
    int distance[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int row = thread_row(item) + 8 * r;
      const int head = row_place(params.source, item, place, row).head;
      slope[r] = kLog2e * params.score.slopes[item.batch * params.score.slopes_batch + head];
      distance[r] = diagonal_of(params.source, params.mask, place, row) - j * tile.n;
    }
    tile::alibi(scores, slope, distance);
  }

  __device__ __forceinline__ void release_keys() { arrive(k_ring.empty(k_ring.stage_before())); }

  // Lets the tiles go that others walk before this warpgroup's first.
  template <class Ring>
  __device__ __forceinline__ void skip(const Item& item, Ring& ring) {
    if constexpr (tile.own_tiles) {
#pragma unroll 1
      for (int i = 0; i < item.skipped; i++) {
        ring.wait_full();
        arrive(ring.empty(ring.stage()));
        ring.advance();
      }
    }
  }

  // Called with the turn taken, so all four warps are done with the softmax of the last tile, j. If a weight of it
  // was 2^100 or more, does that tile again with its true maxima. Then lets the key tile go. `again` restores
  // the scores that were already on their way.
  template <bool again>
  __device__ __forceinline__ void settle(const Item& item, int j) {
    volatile int& overflow = memory.overflow[warpgroup][k_ring.stage_before()];
    if (__any_sync(~0u, overflow != 0)) {
      ptx::wgmma_wait<0>();
      ptx::pin(scores);
      ptx::wgmma_fence();
      issue_scores(k_ring.stage_before());
      ptx::wgmma_wait<0>();
      ptx::pin(scores);
      shape_scores(item, j, false);
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

  // What the mask of an item's first tile needs: computed while its scores are.
  __device__ __forceinline__ Visible visible_first(const Item& item) const {
    Visible rows{};
    if (item.tiles.first_masked) rows = visible(item);
#pragma unroll
    for (Interval& keys : rows.keys) ptx::pin(keys.begin), ptx::pin(keys.end);
    return rows;
  }

  // Weights of an item's first tile.
  __device__ __forceinline__ void weigh_first(const Item& item, const Visible& seen) {
    top_logit[0] = top_logit[1] = -INFINITY;
    alarm = item.tiles.first_masked ? tile::kAlarmBehindMask : tile::kAlarm;
    const int j = item.tiles.end - 1;
    if constexpr (tile.skip_halves) {
      // A tile without a mask has code of its own: asking what is seen cost full attention 6 % at 512 keys.
      if (item.tiles.first_masked)
        tile::softmax_first(scores, rows, params.score.scale_log2, shape_scores(item, j, true, seen));
      else
        tile::softmax_first(scores, rows, params.score.scale_log2);
    } else {
      shape_scores(item, j, item.tiles.first_masked, seen);
      tile::softmax_first(scores, rows, params.score.scale_log2);
    }
  }

  // The same with its scores, on its own: before a block's first item, or where the next item's queries come late.
  __device__ __forceinline__ void first(const Item& item) {
    load_queries(item);
    skip(item, k_ring);
    k_ring.wait_full();
    ptx::pin(scores);
    ptx::wgmma_fence();
    queries_are_loaded();
    issue_scores(k_ring.stage());
    const Visible seen = visible_first(item);
    output_left();
    ptx::wgmma_wait<0>();
    ptx::pin(scores);
    k_ring.advance();
    scores_are_there(item, item.tiles.end - 1);
    weigh_first(item, seen);
    tile::round_to_operand<Element>(weights, scores);
  }

  // After the products of Q and key tile j: what they read can go, where nothing is done twice.
  __device__ __forceinline__ void scores_are_there(const Item& item, int j) {
    if constexpr (!tile.stale_reference()) release_keys();
    if constexpr (!tile.q_registers)
      if (j == item.tiles.begin) release_queries();
  }

  // Which tiles of an item a step is for. Plain ones need no mask and no maxima; those to the right of them come before
  // any plain one, so their predecessor cannot have overflowed. Without a stale reference all are one part.
  enum class Part { right, plain, left, any };

  // Tile j of the item, and the output of tile j + 1.
  template <Part part>
  __device__ __forceinline__ void step(const Item& item, int j) {
    k_ring.wait_full();
    if (in_turn(item, j))
      wait_turn();
    else
      store.meet();
    ptx::pin(output), ptx::pin(scores), ptx::pin(weights);
    ptx::wgmma_fence();
    issue_scores(k_ring.stage());
    if constexpr (tile.stale_reference()) {
      if constexpr (part == Part::right)
        release_keys();
      else
        settle<true>(item, j + 1);
    }
    v_ring.wait_full();
    issue_output(item, j + 1, j + 2 != item.tiles.end);
    if (in_turn(item, j)) pass_turn();
    ptx::wgmma_wait<1>();
    ptx::pin(scores);
    k_ring.advance();
    scores_are_there(item, j);
    bool masked = part != Part::plain;
    if constexpr (part == Part::any) masked = j < item.tiles.plain_begin || j >= item.tiles.plain_end;
    const auto halves = shape_scores(item, j, masked);
    bool moved;
    if constexpr (part == Part::plain) {
      moved = tile::softmax_stale(scores, rows, factor, sum_before, params.score.scale_log2, alarm);
    } else {
      moved = tile::softmax_exact(scores, rows, factor, params.score.scale_log2, halves);
    }
    ptx::wgmma_wait<0>();
    ptx::pin(output);
    arrive(v_ring.empty(v_ring.stage()));
    v_ring.advance();
    if (moved) {
      tile::scale_rows(output, factor);
      if constexpr (part == Part::plain) {
        const bool good = rows.sum[0] < tile::kOverflow && rows.sum[1] < tile::kOverflow;
        if (!good) memory.overflow[warpgroup][k_ring.stage_before()] = 1;
      }
    }
    tile::round_to_operand<Element>(weights, scores);
  }

  // The last output of an item beside the first scores of the next.
  __device__ __forceinline__ void cross(const Item& item, const Item& next) {
    k_ring.wait_full();
    store.staging_is_free();
    wait_turn();
    if constexpr (tile.stale_reference()) settle<false>(item, item.tiles.begin);
    load_queries(next);
    ptx::pin(output), ptx::pin(scores), ptx::pin(weights);
    ptx::wgmma_fence();
    queries_are_loaded();
    issue_scores(k_ring.stage());
    v_ring.wait_full();
    issue_output(item, item.tiles.begin, item.tiles.end - item.tiles.begin != 1);
    pass_turn();
    const auto finish = store.finish_rows(item, rows, top_logit);
    const Visible seen = visible_first(next);
    ptx::wgmma_wait<1>();
    ptx::pin(scores);
    k_ring.advance();
    scores_are_there(next, next.tiles.end - 1);
    weigh_first(next, seen);
    ptx::wgmma_wait<0>();
    ptx::pin(output);
    arrive(v_ring.empty(v_ring.stage()));
    v_ring.advance();
    store(item, finish, output, leaving);
    tile::round_to_operand<Element>(weights, scores);
  }

  // The last output of an item, on its own.
  __device__ __forceinline__ void last(const Item& item) {
    v_ring.wait_full();
    store.staging_is_free();
    wait_turn();
    if constexpr (tile.stale_reference()) settle<false>(item, item.tiles.begin);
    ptx::pin(output), ptx::pin(weights);
    ptx::wgmma_fence();
    issue_output(item, item.tiles.begin, item.tiles.end - item.tiles.begin != 1);
    pass_turn();
    const auto finish = store.finish_rows(item, rows, top_logit);
    ptx::wgmma_wait<0>();
    ptx::pin(output);
    arrive(v_ring.empty(v_ring.stage()));
    leave_values(item);
    store(item, finish, output, leaving);
  }

  // After an item's last values. Where its output leaves through the ring, the first warpgroup takes the stage that is
  // next and the second that of the last values, when both have read what is there and the output before has left.
  __device__ __forceinline__ void leave_values(const Item& item) {
    if constexpr (tile.output == OutputWay::values) {
      leaving = v_ring.stage();
      if (warpgroup != 0) v_ring.wait_read();
      v_ring.advance();
      if (warpgroup == 0) {
        leaving = v_ring.stage();
        v_ring.wait_empty();
      }
      ptx::mbarrier_wait(output_read(leaving), Shared::parity(item.slot) ^ 1);
    } else {
      v_ring.advance();
    }
  }

  __device__ __forceinline__ std::uint32_t output_read(int stage) const {
    return shared + static_cast<std::uint32_t>(offsetof(Shared, output_read)) + 8 * stage;
  }

  // Lets the loader have the stage through which the last output left.
  __device__ __forceinline__ void output_left() const {
    if constexpr (tile.output == OutputWay::values) {
      if (threadIdx.x % 128 != 0 || leaving < 0) return;
      ptx::tma_store_wait_read<0>();
      ptx::mbarrier_arrive(output_read(leaving));
    }
  }

  __device__ __forceinline__ void run() {
    if (warpgroup == tile.compute_warpgroups() - 1) ptx::named_barrier_arrive(turn(0), 256);
    Item item = next_item();
    if (item.none()) return;
    first(item);
    while (true) {
      skip(item, v_ring);
      int j = item.tiles.end - 2;
      if constexpr (tile.stale_reference()) {
        for (; j >= item.tiles.plain_end; j--) step<Part::right>(item, j);
        for (; j >= item.tiles.plain_begin; j--) step<Part::plain>(item, j);
        for (; j >= item.tiles.begin; j--) step<Part::left>(item, j);
      } else {
        for (; j >= item.tiles.begin; j--) step<Part::any>(item, j);
      }
      if constexpr (!tile.q_registers) last(item);
      const Item next = next_item();
      if (next.none()) break;
      if constexpr (tile.q_registers)
        cross(item, next);
      else
        first(next);
      item = next;
    }
    if constexpr (tile.q_registers) last(item);
    store.finish();
  }
};

}  // namespace fattn::gpu::sm90
