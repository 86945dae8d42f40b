// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/sm90/backward_compute.cuh"

namespace fattn::gpu::sm90 {

// Head dimensions whose dK and dV of 64 keys do not fit into one warpgroup's registers. The two computing warpgroups
// share the same 64 keys: one has S^T, P^T and dV, the other dP^T, dS^T and dK, and each computes half of dQ's columns.
// P^T goes from the first to the second through shared memory in fp32, in the order of the registers; dQ is added to
// memory straight from registers, because there is no room to stage it.
template <class Traits>
struct BackwardWide {
  static constexpr BackwardTile tile = Traits::tile;
  using Element = typename Traits::Element;
  using Shared = typename Traits::Shared;
  using Params = typename Traits::Params;
  using Score = typename Traits::Score;
  using Ring = tile::RingStep<tile.stages>;
  using Keys = tile::SwizzledTile<64, tile.d>;
  using Queries = tile::SwizzledTile<64, tile.d>;
  using Gradients = tile::SwizzledTile<64, 64>;
  // Of a warpgroup's part of dQ: whole slices, and half of one that the two share.
  static constexpr int kChunks = (tile.part_columns() + 63) / 64;
  static constexpr int kPart = 64 * tile.part_columns();  // floats

  const Params& params;
  Shared& memory;
  std::uint32_t shared;
  int warpgroup;
  float sum[tile.d / 2];   // dV or dK
  float product[32];       // S, then P; or dP
  float dq[32];            // 64 columns
  std::uint32_t left[16];  // P or dS, rounded
  int items = 0;           // before this one
  int first_step = 0;      // of this one

  __device__ __forceinline__ static void arrive(std::uint64_t& barrier) {
    __syncwarp();
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

  __device__ __forceinline__ void issue_product(std::uint32_t own, std::uint32_t rows) {
#pragma unroll
    for (int step = 0; step < tile.d / 16; step++)
      ptx::wgmma<Element, 64, ptx::Major::k, ptx::Major::k>(product, Keys::along_columns(own, step),
                                                            Queries::along_columns(rows, step), step != 0);
    ptx::wgmma_commit();
  }
  __device__ __forceinline__ void issue_sum(std::uint32_t rows) {
#pragma unroll
    for (int step = 0; step < 4; step++)
      ptx::wgmma<Element, tile.d, ptx::Major::mn>(sum, left + 4 * step, Queries::along_rows(rows, step), 1);
    ptx::wgmma_commit();
  }
  // The chunk's columns: 64, or 32 of the slice that both warpgroups share. The second warpgroup's come last to first.
  static constexpr int chunk_columns(int chunk) {
    const int left = tile.part_columns() - 64 * chunk;
    return left < 64 ? left : 64;
  }
  __device__ __forceinline__ int first_column(int chunk) const {
    if (tile.part_columns() % 64 == 0 || warpgroup == 0) return warpgroup * tile.part_columns() + 64 * chunk;
    return tile.d - 64 * chunk - chunk_columns(chunk);
  }

  template <int chunk>
  __device__ __forceinline__ void issue_dq(int step) {
    constexpr int columns = chunk_columns(chunk);
    const std::uint32_t gradients = shared + offsetof(Shared, ds) + step % 2 * Gradients::kBytes;
    const int column = first_column(chunk);
    const std::uint32_t keys = shared + offsetof(Shared, k) + column / 64 * Keys::kSliceBytes + column % 64 * 2;
    auto& sums = reinterpret_cast<float(&)[columns / 2]>(dq);
#pragma unroll
    for (int k = 0; k < 4; k++)
      ptx::wgmma<Element, columns, ptx::Major::k, ptx::Major::mn>(sums, Gradients::along_columns(gradients, k),
                                                                  Keys::along_rows(keys, k), k != 0);
    ptx::wgmma_commit();
  }

  // The warpgroup's part of a query tile's sums.
  __device__ __forceinline__ int part_of(const QueryWalk& walk) const {
    return (memory.item[items & 1].first_tile + walk.head * params.rows.query_tiles + walk.tile) * 2 + warpgroup;
  }
  __device__ __forceinline__ void meet() const {
    ptx::named_barrier_sync(static_cast<int>(BackwardBarrier::warps) + warpgroup, 128);
  }
  template <int chunk>
  __device__ __forceinline__ void add_dq(int part) const {
    const int column = first_column(chunk) - warpgroup * tile.part_columns();
    float* const to = params.rows.dq + static_cast<long long>(part) * kPart + 64 * column + threadIdx.x % 128 * 4;
#pragma unroll
    for (int i = 0; i < chunk_columns(chunk) / 8; i++)
      ptx::global_add(to + 512 * i, dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
  }

  template <int chunk>
  __device__ __forceinline__ void add_chunk(int step, int part) {
    ptx::pin(dq);
    ptx::wgmma_fence();
    issue_dq<chunk>(step);
    ptx::wgmma_wait<0>();
    ptx::pin(dq), ptx::pin(sum), ptx::pin(product);
    if (chunk == 0 && params.rows.in_turn) wait(memory.turn_full[warpgroup], step & 1);
    add_dq<chunk>(part);
  }

  // Both chunks of dQ's products of a step; nothing else is in flight when it returns.
  __device__ __forceinline__ void queries_gradient(int step, const QueryWalk& walk) {
    const int part = part_of(walk);
    wait(memory.ds_full[step % 2], step / 2 % 2);
    add_chunk<0>(step, part);
    if constexpr (kChunks > 1) add_chunk<1>(step, part);
    if (params.rows.in_turn) arrive(memory.turn_done[warpgroup]);
  }

  __device__ __forceinline__ float4* exchange() const {
    return reinterpret_cast<float4*>(memory.weights) + threadIdx.x % 128;
  }

  // Of the thread's two keys.
  __device__ __forceinline__ int first_key() const {
    return memory.item[items & 1].key + 16 * (threadIdx.x / 32 % 4) + threadIdx.x % 32 / 4;
  }

  __device__ __forceinline__ bool capped() const {
    if constexpr (Score::kModified) return params.score.cap_out > 0.f;
    return false;
  }

  // Softcap, whose derivative waits where P will go to the other warpgroup, and ALiBi.
  __device__ __forceinline__ void shape(int step, int query_tile) {
    const ShapedScore& score = params.score;
    if (capped()) {
      wait(memory.weights_empty, (step & 1) ^ 1);
      float four[4];
      tile::softcap<32>(product, score.cap_in, score.cap_out, [&](int i, float derivative) {
        four[i % 4] = derivative;
        if (i % 4 == 3) exchange()[128 * (i / 4)] = make_float4(four[0], four[1], four[2], four[3]);
      });
    } else {
      tile::scale(product, score.raw_log2);
    }
    if (score.slopes != nullptr)
      subtract_alibi(params, memory, items, product, step - first_step, first_key(), query_tile * 64);
  }

  // P for dS, which takes it times the derivative of the softcap.
  __device__ __forceinline__ void hand_over() const {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float4 four = make_float4(1.f, 1.f, 1.f, 1.f);
      if (capped()) four = exchange()[128 * i];
      exchange()[128 * i] = make_float4(four.x * product[4 * i], four.y * product[4 * i + 1],
                                        four.z * product[4 * i + 2], four.w * product[4 * i + 3]);
    }
  }

  __device__ __forceinline__ void weigh(int step, int query_tile) {
    const float2* const lse = reinterpret_cast<const float2*>(memory.row_lse[Ring::stage(step)]) + threadIdx.x % 4;
    const float scale = params.score.scale_log2;
    if constexpr (Score::kModified)
      if (params.score.modified) shape(step, query_tile);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float2 two = lse[4 * i];
#pragma unroll
      for (int r = 0; r < 2; r++) {
        product[4 * i + 2 * r] = ptx::exp2_approx(fmaf(product[4 * i + 2 * r], scale, -two.x));
        product[4 * i + 2 * r + 1] = ptx::exp2_approx(fmaf(product[4 * i + 2 * r + 1], scale, -two.y));
      }
    }
    const TileRange& tiles = memory.item[items & 1].queries;
    if (query_tile >= tiles.interior_begin && query_tile < tiles.interior_end) return;
    int key = first_key();
    ptx::pin(key);
    const auto bound = bound_mask(params.source, params.mask, memory.place[items & 1]);
    const Interval queries[2] = {queries_of(bound, key), queries_of(bound, key + 8)};
    tile::mask_scores(product, queries, query_tile * 64, 0.f);
  }

  // S, P and dV.
  __device__ __forceinline__ void walk_values(int begin, int end) {
    const std::uint32_t keys = shared + offsetof(Shared, k);
    QueryWalk walk(memory.item[items & 1], params.source.heads_per_kv), before = walk;
    wait(memory.k_full, items & 1);
#pragma unroll 1
    for (int step = begin; step < end; step++) {
      wait(memory.q_full[Ring::stage(step)], Ring::parity(step));
      ptx::pin(product), ptx::pin(sum);
      ptx::wgmma_fence();
      issue_product(keys, query_tile(step));
      ptx::wgmma_wait<0>();
      ptx::pin(product), ptx::pin(sum);
      weigh(step, walk.tile);
      arrive(memory.q_empty[Ring::stage(step)]);
      wait(memory.weights_empty, (step & 1) ^ 1);
      hand_over();
      arrive(memory.weights_full);
      tile::round_to_operand<Element>(left, product);
      wait(memory.dout_full[Ring::stage(step)], Ring::parity(step));
      ptx::pin(left), ptx::pin(sum);
      ptx::wgmma_fence();
      issue_sum(dout_tile(step));
      if (step > begin) {
        queries_gradient(step - 1, before);
      } else {
        ptx::wgmma_wait<0>();
        ptx::pin(sum);
      }
      arrive(memory.dout_empty[Ring::stage(step)]);
      before = walk;
      walk.advance();
    }
    queries_gradient(end - 1, before);
  }

  // dP, dS and dK.
  __device__ __forceinline__ void walk_keys(int begin, int end) {
    const std::uint32_t values = shared + offsetof(Shared, v);
    QueryWalk walk(memory.item[items & 1], params.source.heads_per_kv);
    wait(memory.v_full, items & 1);
#pragma unroll 1
    for (int step = begin; step < end; step++) {
      wait(memory.dout_full[Ring::stage(step)], Ring::parity(step));
      ptx::pin(product), ptx::pin(sum);
      ptx::wgmma_fence();
      issue_product(values, dout_tile(step));
      wait(memory.weights_full, step & 1);
      ptx::wgmma_wait<0>();
      ptx::pin(product), ptx::pin(sum);
      const float2* const delta =
          reinterpret_cast<const float2*>(memory.row_delta[Ring::stage(step)]) + threadIdx.x % 4;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float4 weights = exchange()[128 * i];
        const float2 two = delta[4 * i];
        left[2 * i] =
            ptx::pack<Element>(weights.x * (product[4 * i] + two.x), weights.y * (product[4 * i + 1] + two.y));
        left[2 * i + 1] =
            ptx::pack<Element>(weights.z * (product[4 * i + 2] + two.x), weights.w * (product[4 * i + 3] + two.y));
      }
      arrive(memory.weights_empty);
      arrive(memory.dout_empty[Ring::stage(step)]);
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
      const std::uint32_t to = shared + offsetof(Shared, ds) + step % 2 * Gradients::kBytes;
#pragma unroll
      for (int i = 0; i < 8; i += 2) {
        const std::uint32_t four[4] = {left[2 * i], left[2 * i + 1], left[2 * i + 2], left[2 * i + 3]};
        ptx::stmatrix_trans(to + Gradients::chunk(8 * i + lane / 16 * 8 + lane % 8, 2 * warp + lane / 8 % 2), four);
      }
      ptx::fence_proxy_async();
      arrive(memory.ds_full[step % 2]);
      wait(memory.q_full[Ring::stage(step)], Ring::parity(step));
      ptx::pin(left), ptx::pin(sum);
      ptx::wgmma_fence();
      issue_sum(query_tile(step));
      queries_gradient(step, walk);
      arrive(memory.q_empty[Ring::stage(step)]);
      walk.advance();
    }
  }

  __device__ __forceinline__ void run() {
    int step = 0;
#pragma unroll 1
    for (;; items++) {
      wait(memory.items.full[items & 1], items / 2 & 1);
      const BackwardItem& item = memory.item[items & 1];
      if (item.key < 0) break;
      const int end = step + (item.queries.end - item.queries.begin) * params.source.heads_per_kv;
#pragma unroll
      for (int i = 0; i < tile.d / 2; i++) sum[i] = 0.f;
      if constexpr (Traits::Source::kVarlen)
        if (step < end) clear_unseen_keys<Traits>(memory, items);
      if (step == end) {
        wait(memory.k_full, items & 1);
        wait(memory.v_full, items & 1);
      } else if (warpgroup == 0) {
        walk_values(step, end);
      } else {
        walk_keys(step, end);
      }
      if (warpgroup == 1) {
        const float scale[2] = {params.score.scale, params.score.scale};
        tile::scale_rows(sum, scale);
      }
      store(item);
      first_step = step = end;
      arrive(memory.items.empty[items & 1]);
    }
  }

  // dK and dV are staged where K and V were, when nobody reads those any more.
  __device__ __forceinline__ void store(const BackwardItem& item) {
    ptx::named_barrier_sync(static_cast<int>(BackwardBarrier::compute), 256);
    const std::uint32_t staging = shared + (warpgroup == 0 ? offsetof(Shared, v) : offsetof(Shared, k));
    tile::store_accumulator<Element, 64, tile.d>(sum, staging, 16 * (threadIdx.x / 32 % 4));
    ptx::fence_proxy_async();
    meet();
    if (threadIdx.x % 128 == 0) {
      store_keys<tile.d>(warpgroup == 0 ? params.source.dv : params.source.dk, staging, Keys::kSliceBytes,
                         key_gradient_box(params.source, memory.place[items & 1], item, 0, 64),
                         copied_slices<tile.d / 64>(params.source, warpgroup == 0));
      ptx::tma_store_commit();
      ptx::tma_store_wait_read<0>();
      ptx::mbarrier_arrive(ptx::shared_address(warpgroup == 0 ? &memory.v_empty : &memory.k_empty));
    }
    __syncwarp();
  }
};

}  // namespace fattn::gpu::sm90
