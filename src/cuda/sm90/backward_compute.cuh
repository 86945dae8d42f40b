// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/ptx/arithmetic.cuh"
#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/matrix.cuh"
#include "cuda/ptx/named_barrier.cuh"
#include "cuda/ptx/pin.cuh"
#include "cuda/ptx/shared.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/sm90/backward_store.cuh"
#include "cuda/sm90/barriers.hpp"
#include "cuda/tile/fragment.cuh"
#include "cuda/tile/mask.cuh"
#include "cuda/tile/pipeline.cuh"
#include "cuda/tile/score.cuh"
#include "cuda/tile/split.cuh"

namespace fattn::gpu::sm90 {

// ALiBi on scores of keys and queries, transposed: the thread's keys are `key` and key + 8, the tile's first query is
// `query`, the step one of the item's, of which `items` came before.
template <class Params, class Shared, int count>
__device__ __forceinline__ void subtract_alibi(const Params& params, const Shared& memory, int items,
                                               float (&scores)[count], int step, int key, int query) {
  const BackwardItem& item = memory.item[items & 1];
  // The scores of the step after the last are computed too, and not used.
  const int head = min_of(step / (item.queries.end - item.queries.begin), params.source.heads_per_kv - 1);
  const float slope =
      kLog2e *
      params.score.slopes[item.batch * params.score.slopes_batch + item.head * params.source.heads_per_kv + head];
  const int distance = key - bound_mask(params.source, params.mask, memory.place[items & 1]).diagonal(query);
  tile::alibi(scores, {slope, slope}, {distance, distance + 8});
}

// One computing warpgroup: 64 keys, whose dK and dV stay in registers while it walks over query tiles. Of each tile it
// has S^T = K Q^T, P^T = exp(S^T - LSE), dP^T = V dO^T and dS^T = P^T (dP^T - delta) in registers, where P^T and dS^T
// are the left operands of dV += P^T dO and dK += dS^T Q. dS goes through shared memory for dQ = dS K, of which each
// warpgroup computes one part over the keys of all, one step late, so that they need not run in step.
template <class Traits>
struct BackwardCompute {
  static constexpr BackwardTile tile = Traits::tile;
  using Element = typename Traits::Element;
  using Shared = typename Traits::Shared;
  using Params = typename Traits::Params;
  using Score = typename Traits::Score;
  using Ring = tile::RingStep<tile.stages>;
  using Keys = tile::SwizzledTile<tile.n, tile.d>;
  using Queries = tile::SwizzledTile<tile.m, tile.d>;
  using Gradients = tile::SwizzledTile<tile.m, tile.n>;  // dS: query rows, keys along columns
  static constexpr int kOwnRows = 64 * 128;              // bytes of 64 rows of a slice
  static constexpr int kSlices = tile.d / 64;
  static constexpr int kShift = weight_shift(Traits::dtype, tile);  // P is so many powers of two larger

  const Params& params;
  Shared& memory;
  std::uint32_t shared;
  int warpgroup;
  int items = 0;       // before this one
  int first_step = 0;  // of this one
  // The thread's places in shared memory. Left to itself the compiler makes them anew in every step.
  std::uint32_t own_queries;  // of two floats among a tile's rows
  std::uint32_t own_chunk;    // where it stores the first chunk of dS, in a tile
  std::uint32_t own_staging;  // where it stores dQ
  float dk[tile.d / 2], dv[tile.d / 2];
  float scores[tile.m / 2];  // S, then P, then dP
  float dq[tile.part_columns() / 2];
  // P and dS as left operands. dS takes P before rounding, which is kept as eight more bits where fp32 would not fit.
  std::uint32_t weights[tile.m / 4], gradients[tile.m / 4];
  std::conditional_t<tile.whole_weights, float[tile.m / 2], std::uint32_t[tile.m / 8]> weights_rest;

  __device__ __forceinline__ static void arrive(std::uint64_t& barrier) {
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(ptx::shared_address(&barrier));
  }
  __device__ __forceinline__ static void wait(std::uint64_t& barrier, std::uint32_t parity) {
    ptx::mbarrier_wait(ptx::shared_address(&barrier), parity);
  }
  __device__ __forceinline__ std::uint32_t query_tile(int step) const {
    return shared + offsetof(Shared, q) + Ring::stage(step) * Queries::kBytes;
  }
  __device__ __forceinline__ std::uint32_t dout_tile(int step) const {
    return shared + offsetof(Shared, dout) + Ring::stage(step) * Queries::kBytes;
  }
  __device__ __forceinline__ std::uint32_t gradient_tile(int step) const {
    return shared + offsetof(Shared, ds) + step % kScoreGradients * Gradients::kBytes;
  }

  // S^T with the keys, dP^T with the values: this warpgroup's 64 of them times all rows of a tile. What is there
  // already is added to.
  __device__ __forceinline__ void issue_scores(std::uint32_t own, std::uint32_t rows, bool add) {
#pragma unroll
    for (int step = 0; step < tile.d / 16; step++)
      ptx::wgmma<Element, tile.m, ptx::Major::k, ptx::Major::k>(scores, Keys::along_columns(own, step),
                                                                Queries::along_columns(rows, step), add || step != 0);
    ptx::wgmma_commit();
  }

  // dV += P^T dO or dK += dS^T Q.
  __device__ __forceinline__ void issue_sum(float (&sum)[tile.d / 2], const std::uint32_t (&left)[tile.m / 4],
                                            std::uint32_t rows) {
#pragma unroll
    for (int step = 0; step < tile.m / 16; step++)
      ptx::wgmma<Element, tile.d, ptx::Major::mn>(sum, left + 4 * step, Queries::along_rows(rows, step), 1);
    ptx::wgmma_commit();
  }

  // This warpgroup's part of dQ.
  __device__ __forceinline__ void issue_dq(int step) {
    const int row_block = warpgroup / tile.parts_of_columns(), column_part = warpgroup % tile.parts_of_columns();
    const std::uint32_t left = gradient_tile(step) + row_block * kOwnRows;
    const int column = column_part * tile.part_columns();
    const std::uint32_t right = shared + offsetof(Shared, k) + column / 64 * Keys::kSliceBytes + column % 64 * 2;
#pragma unroll
    for (int k = 0; k < tile.n / 16; k++)
      ptx::wgmma<Element, tile.part_columns(), ptx::Major::k, ptx::Major::mn>(dq, Gradients::along_columns(left, k),
                                                                              Keys::along_rows(right, k), k != 0);
    ptx::wgmma_commit();
  }

  // Hands dQ of the step before to the thread that adds it to memory, in the order of the registers.
  __device__ __forceinline__ void stage_dq(int round) {
    wait(memory.dq_empty[warpgroup], (round & 1) ^ 1);
#pragma unroll
    for (int i = 0; i < tile.part_columns() / 8; i++)
      ptx::store_shared_4(own_staging + 2048 * i, dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
    ptx::fence_proxy_async();
    __syncwarp();
    arrive(memory.dq_full[warpgroup]);
  }

  // P as an operand, and what dS needs of it: with a softcap, times the derivative that weigh() left there.
  __device__ __forceinline__ void round_weights() {
    if constexpr (tile.whole_weights) {
      tile::round_to_operand<Element>(weights, scores);
      bool capped = false;
      if constexpr (Score::kModified) capped = params.score.cap_out > 0.f;
#pragma unroll
      for (int i = 0; i < tile.m / 2; i++) weights_rest[i] = capped ? weights_rest[i] * scores[i] : scores[i];
    } else {
      split_weights();
    }
  }
  __device__ __forceinline__ void split_weights() {
#pragma unroll
    for (int i = 0; i < tile.m / 8; i++) {
      std::uint32_t rounded[2];
      tile::SplitFour<Element>::split(rounded, weights_rest[i],
                                      {scores[4 * i], scores[4 * i + 1], scores[4 * i + 2], scores[4 * i + 3]});
      weights[2 * i] = rounded[0], weights[2 * i + 1] = rounded[1];
    }
  }

  // P^T from S^T, in place. The mask comes last, so that it holds for every sign of the scale.
  __device__ __forceinline__ void weigh(int step, int query_tile) {
    const std::uint32_t lse = shared + offsetof(Shared, row_lse) + Ring::stage(step) * (4 * tile.m) + own_queries;
    const float scale = params.score.scale_log2;
    if constexpr (Score::kModified)
      if (params.score.modified) shape(step, query_tile);
#pragma unroll
    for (int i = 0; i < tile.m / 8; i++) {
      const float2 two = ptx::load_shared_2(lse + 32 * i);
#pragma unroll
      for (int r = 0; r < 2; r++) {
        scores[4 * i + 2 * r] = ptx::exp2_approx(fmaf(scores[4 * i + 2 * r], scale, -two.x));
        scores[4 * i + 2 * r + 1] = ptx::exp2_approx(fmaf(scores[4 * i + 2 * r + 1], scale, -two.y));
      }
    }
    const TileRange& tiles = memory.own[items & 1][warpgroup];
    if (query_tile < tiles.interior_begin || query_tile >= tiles.interior_end) mask(query_tile);
  }

  // Softcap, whose derivative waits in weights_rest, and ALiBi.
  __device__ __forceinline__ void shape(int step, int query_tile) {
    const ShapedScore& score = params.score;
    if (score.cap_out > 0.f) {
      tile::softcap<tile.m / 2>(scores, score.cap_in, score.cap_out,
                                [&](int i, float derivative) { weights_rest[i] = derivative; });
    } else {
      tile::scale(scores, score.raw_log2);
    }
    if (score.slopes != nullptr)
      subtract_alibi(params, memory, items, scores, step - first_step, first_key(), query_tile * tile.m);
  }

  // Of the thread's two keys.
  __device__ __forceinline__ int first_key() const {
    return memory.item[items & 1].key + 64 * warpgroup + 16 * (threadIdx.x / 32 % 4) + threadIdx.x % 32 / 4;
  }

  __device__ __forceinline__ void mask(int query_tile) {
    int key = first_key();
    ptx::pin(key);  // what is rarely needed is not kept in registers
    const auto bound = bound_mask(params.source, params.mask, memory.place[items & 1]);
    const Interval queries[2] = {queries_of(bound, key), queries_of(bound, key + 8)};
    tile::mask_scores(scores, queries, query_tile * tile.m, 0.f);
  }

  // dP begins with -delta: that costs no instruction but the loads.
  __device__ __forceinline__ void begin_with_delta(int step) {
    const std::uint32_t delta = shared + offsetof(Shared, row_delta) + Ring::stage(step) * (4 * tile.m) + own_queries;
#pragma unroll
    for (int i = 0; i < tile.m / 8; i++) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const float2 two = ptx::load_shared_2(delta + 32 * i);
        scores[4 * i + 2 * r] = two.x, scores[4 * i + 2 * r + 1] = two.y;
      }
    }
  }

  // dS^T = P^T (dP^T - delta) of the scores and weights, rounded, and its transpose to shared memory.
  __device__ __forceinline__ void differentiate(int step) {
#pragma unroll
    for (int i = 0; i < tile.m / 8; i++) {
      float four[4];
      if constexpr (tile.whole_weights) {
#pragma unroll
        for (int r = 0; r < 4; r++) four[r] = weights_rest[4 * i + r];
      } else {
        tile::SplitFour<Element>::join(four, {weights[2 * i], weights[2 * i + 1]}, weights_rest[i]);
      }
#pragma unroll
      for (int r = 0; r < 2; r++)
        gradients[2 * i + r] =
            ptx::pack<Element>(four[2 * r] * scores[4 * i + 2 * r], four[2 * r + 1] * scores[4 * i + 2 * r + 1]);
    }
    const std::uint32_t to = gradient_tile(step) + own_chunk;
#pragma unroll
    for (int i = 0; i < tile.m / 8; i += 2) {
      const std::uint32_t four[4] = {gradients[2 * i], gradients[2 * i + 1], gradients[2 * i + 2],
                                     gradients[2 * i + 3]};
      ptx::stmatrix_trans(to + 8 * i * 128, four);
    }
    ptx::fence_proxy_async();
    __syncwarp();
    arrive(memory.ds_full[step % kScoreGradients]);
    arrive(memory.dout_empty[Ring::stage(step)]);
  }

  __device__ __forceinline__ void wait_gradients(int step) {
    wait(memory.ds_full[step % kScoreGradients], step / kScoreGradients % 2);
  }

  // From shared memory each time: registers are scarce.
  __device__ __forceinline__ int query_after(int query) const {
    QueryWalk walk(memory.item[items & 1], 1);
    walk.tile = query;
    walk.advance();
    return walk.tile;
  }

  __device__ __forceinline__ void meet() const {
    ptx::named_barrier_sync(static_cast<int>(BackwardBarrier::warps) + warpgroup, 128);
  }

  // Until the copy engine has read the dK of the item before, which lies where dS goes.
  __device__ __forceinline__ void settle() const {
    if (threadIdx.x % 128 == 0) ptx::tma_store_wait_read<0>();
    meet();
  }

  // None of this warpgroup's keys is seen by the first query tile, but the other's are: causal masks begin so.
  __device__ __forceinline__ bool skips(int begin, int end) const {
    const BackwardItem& item = memory.item[items & 1];
    return tile.m == 64 && end - begin > 1 && item.direction > 0 && item.start == item.queries.begin &&
           memory.own[items & 1][warpgroup].begin > item.queries.begin;
  }
  // Its dS is zero, and its tiles of Q and dO are not read.
  __device__ __forceinline__ void hand_in_nothing(int step) {
    uint4* const to = reinterpret_cast<uint4*>(memory.ds[step % kScoreGradients] + warpgroup * 64 * tile.m);
#pragma unroll
    for (int i = 0; i < tile.m / 16; i++) to[128 * i + threadIdx.x % 128] = make_uint4(0, 0, 0, 0);
    ptx::fence_proxy_async();
    __syncwarp();
    arrive(memory.ds_full[step % kScoreGradients]);
    arrive(memory.dout_empty[Ring::stage(step)]);
    arrive(memory.q_empty[Ring::stage(step)]);
  }

  // Steps [begin, end), counted from the block's first.
  __device__ __forceinline__ void walk(int begin, int end) {
    const std::uint32_t keys = shared + offsetof(Shared, k) + warpgroup * kOwnRows;
    const std::uint32_t values = shared + offsetof(Shared, v) + warpgroup * kOwnRows;
    int query = memory.item[items & 1].start;
    int start = begin;
    if (skips(begin, end)) {
      settle();
      hand_in_nothing(begin);
      start++;
      query = query_after(query);
    }
    wait(memory.q_full[Ring::stage(start)], Ring::parity(start));
    ptx::pin(scores), ptx::pin(dk), ptx::pin(dv);
    ptx::wgmma_fence();
    issue_scores(keys, query_tile(start), false);
    ptx::wgmma_wait<0>();
    ptx::pin(scores);
    weigh(start, query);
    wait(memory.v_full, items & 1);
    settle();
    round_weights();
    // Nothing is in flight across the loop's back edge, and no iteration is peeled: else ptxas serialises wgmma.
#pragma unroll 1
    for (int step = start; step < end; step++) {
      wait(memory.dout_full[Ring::stage(step)], Ring::parity(step));
      begin_with_delta(step);
      ptx::pin(weights), ptx::pin(weights_rest), ptx::pin(scores), ptx::pin(dv);
      ptx::wgmma_fence();
      issue_scores(values, dout_tile(step), true);
      issue_sum(dv, weights, dout_tile(step));
      const bool first = step == begin;
      const int before = first ? step : step - 1;  // the first product is of nothing and not used
      if (!first) wait_gradients(before);
      ptx::pin(dq);
      ptx::wgmma_fence();
      issue_dq(before);
      ptx::wgmma_wait<1>();
      ptx::pin(scores), ptx::pin(dv);
      differentiate(step);
      ptx::wgmma_wait<0>();
      ptx::pin(dq);
      if (!first) stage_dq(before);

      const int next = step + 1;
      query = query_after(query);
      if (next < end) wait(memory.q_full[Ring::stage(next)], Ring::parity(next));  // after the last, any will do
      ptx::pin(scores), ptx::pin(gradients), ptx::pin(dk);
      ptx::wgmma_fence();
      issue_scores(keys, query_tile(next), false);
      issue_sum(dk, gradients, query_tile(step));
      ptx::wgmma_wait<1>();
      ptx::pin(scores);
      weigh(next, query);
      round_weights();
      ptx::wgmma_wait<0>();
      ptx::pin(dk);
      arrive(memory.q_empty[Ring::stage(step)]);
    }
  }

  // The last step's dQ, and beside it dV, which is staged where this warpgroup's values were.
  __device__ __forceinline__ void finish_walk(int last) {
    wait_gradients(last);
    ptx::pin(dq);
    ptx::wgmma_fence();
    issue_dq(last);
    stage_dv();
    ptx::wgmma_wait<0>();
    ptx::pin(dq);
    arrive(memory.k_empty);
    stage_dq(last);
  }

  __device__ __forceinline__ void stage_dv() {
    if constexpr (kShift != 0) {
      constexpr float unit = 1.f / (1 << kShift);
      tile::scale_rows(dv, {unit, unit});
    }
    tile::store_accumulator<Element, tile.n, tile.d>(dv, shared + offsetof(Shared, v), own_row());
  }
  __device__ __forceinline__ int own_row() const { return 64 * warpgroup + 16 * (threadIdx.x / 32 % 4); }

  // This warpgroup's part of the tile of dS that belongs to a step: 64 rows of 64 columns at least.
  __device__ __forceinline__ std::uint32_t own_gradients(int step) const {
    return gradient_tile(step) + warpgroup * Gradients::kSliceBytes;
  }

  // dV is staged already. dK goes where this warpgroup's dS was, when the other has read it too.
  __device__ __forceinline__ void store(const BackwardItem& item, int end) {
    const float scale[2] = {params.score.scale, params.score.scale};
    const ptx::Box5 box = key_gradient_box(params.source, memory.place[items & 1], item, 64 * warpgroup, 64);
    meet();
    if (threadIdx.x % 128 == 0) {
      store_keys<tile.d>(params.source.dv, shared + offsetof(Shared, v) + warpgroup * kOwnRows, Keys::kSliceBytes, box,
                         copied_slices<kSlices>(params.source, true));
      ptx::tma_store_commit();
    }
    tile::scale_rows(dk, scale);
    if constexpr (kSlices > 1) wait(memory.k_empty, items & 1);
#pragma unroll
    for (int slice = 0; slice < kSlices; slice++) {
      float part[32];
#pragma unroll
      for (int i = 0; i < 32; i++) part[i] = dk[32 * slice + i];
      tile::store_accumulator<Element, 64, 64>(part, own_gradients(end + slice), own_row() - 64 * warpgroup);
    }
    ptx::fence_proxy_async();
    meet();
    if (threadIdx.x % 128 == 0) {
#pragma unroll
      for (int slice = 0; slice < kSlices; slice++) {
        if (slice >= copied_slices<kSlices>(params.source, false)) break;
        ptx::tma_store(&params.source.dk, own_gradients(end + slice),
                       {{64 * slice, box.at[1], box.at[2], box.at[3], box.at[4]}});
      }
      ptx::tma_store_commit();
      ptx::tma_store_wait_read<1>();
      ptx::mbarrier_arrive(ptx::shared_address(&memory.v_empty));
    }
    __syncwarp();
  }

  __device__ __forceinline__ void find_places() {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    own_queries = lane % 4 * sizeof(float2);
    own_chunk = Gradients::chunk(lane / 16 * 8 + lane % 8, 8 * warpgroup + 2 * warp + lane / 8 % 2);
    own_staging = ptx::shared_address(memory.dq[warpgroup]) + threadIdx.x % 128 * sizeof(float4);
    ptx::pin(own_queries), ptx::pin(own_chunk), ptx::pin(own_staging);
  }

  __device__ __forceinline__ void run() {
    find_places();
#pragma unroll
    for (int i = 0; i < tile.part_columns() / 2; i++) dq[i] = 0.f;
    int step = 0;
#pragma unroll 1
    for (;; items++) {
      wait(memory.items.full[items & 1], items / 2 & 1);
      const BackwardItem& item = memory.item[items & 1];
      if (item.key < 0) break;
      const int end = step + (item.queries.end - item.queries.begin) * params.source.heads_per_kv;
#pragma unroll
      for (int i = 0; i < tile.d / 2; i++) dk[i] = dv[i] = 0.f;
      wait(memory.k_full, items & 1);
      if (step < end) {
        if constexpr (Traits::Source::kVarlen) clear_unseen_keys<Traits>(memory, items);
        walk(step, end);
        finish_walk(end - 1);
      } else {
        wait(memory.v_full, items & 1);
        settle();
        stage_dv();
        ptx::fence_proxy_async();
        arrive(memory.k_empty);
      }
      store(item, end);
      first_step = step = end;
      arrive(memory.items.empty[items & 1]);
    }
    if (threadIdx.x % 128 == 0) ptx::tma_store_wait_read<0>();  // the copy engine reads this block's memory until then
  }
};

}  // namespace fattn::gpu::sm90
