// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/ptx/bulk.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/backward_items.cuh"
#include "cuda/sm90/backward_varlen.cuh"
#include "cuda/tile/pipeline.cuh"
#include "cuda/tile/swizzle.cuh"

namespace fattn::gpu::sm90 {

// The loading thread: of every item keys and values, and queries and dO of every step with what belongs to their rows.
template <class Traits>
struct BackwardLoad {
  static constexpr BackwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;
  using Ring = tile::RingStep<tile.stages>;
  static constexpr int kRowBytes = tile.m * sizeof(float);

  const typename Traits::Params& params;
  Shared& memory;
  std::uint32_t shared;

  // The address of an array's stage, or of its barrier.
  template <class Array>
  __device__ __forceinline__ static std::uint32_t at(Array& array, int stage) {
    return ptx::shared_address(&array[stage]);
  }

  // All columns of `rows` rows of one head, slice by slice.
  template <int rows>
  __device__ __forceinline__ static void load(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier,
                                              ptx::Box5 box, int slices) {
    using Rows = tile::SwizzledTile<rows, tile.d>;
#pragma unroll
    for (int slice = 0; slice < Rows::kSlices; slice++) {
      if (slice >= slices) break;
      box.at[0] = 64 * slice;
      ptx::tma_load(to + slice * Rows::kSliceBytes, &map, barrier, box);
    }
  }

  __device__ __forceinline__ void queries(const ptx::Box5& box, int step, int row) {
    const int stage = Ring::stage(step);
    const std::uint32_t full = at(memory.q_full, stage);
    ptx::mbarrier_wait(at(memory.q_empty, stage), Ring::parity(step) ^ 1);
    const int slices = copied_slices<tile.d / 64>(params.source, false);
    ptx::mbarrier_arrive_expect(full, slices * (tile.m * 128) + kRowBytes);
    load<tile.m>(at(memory.q, stage), params.source.q, full, box, slices);
    ptx::bulk_load(at(memory.row_lse, stage), params.rows.lse + row, kRowBytes, full);
  }

  __device__ __forceinline__ void gradients(const ptx::Box5& box, int step, int row) {
    const int stage = Ring::stage(step);
    const std::uint32_t full = at(memory.dout_full, stage);
    ptx::mbarrier_wait(at(memory.dout_empty, stage), Ring::parity(step) ^ 1);
    const int slices = copied_slices<tile.d / 64>(params.source, true);
    ptx::mbarrier_arrive_expect(full, slices * (tile.m * 128) + kRowBytes);
    load<tile.m>(at(memory.dout, stage), params.source.dout, full, box, slices);
    ptx::bulk_load(at(memory.row_delta, stage), params.rows.delta + row, kRowBytes, full);
  }

  // Keys or values of an item, when those before are no longer needed.
  __device__ __forceinline__ static void keys(std::uint64_t& full, std::uint64_t& empty, std::uint32_t to,
                                              const CUtensorMap& map, const ptx::Box5& box, int n, int slices) {
    const std::uint32_t barrier = ptx::shared_address(&full);
    ptx::mbarrier_wait(ptx::shared_address(&empty), (n & 1) ^ 1);
    ptx::mbarrier_arrive_expect(barrier, slices * (tile.n * 128));
    load<tile.n>(to, map, barrier, box, slices);
  }

  __device__ __forceinline__ void item_steps(const BackwardItem& item, int begin, int end, int n) {
    const typename Traits::Source::Place& place = memory.place[n & 1];
    QueryWalk walk(item, params.source.heads_per_kv);
#pragma unroll 1
    for (int step = begin; step < end; step++) {
      const int row = (item.first_tile + walk.head * params.rows.query_tiles + walk.tile) * tile.m;
      const ptx::Box5 box = query_box(params.source, place, item, walk, tile.m);
      queries(box, step, row);
      gradients(box, step, row);
      if (step == begin) {
        const ptx::Box5 box = key_box(params.source, place, item, tile.n);
        keys(memory.k_full, memory.k_empty, ptx::shared_address(memory.k), params.source.k, box, n,
             copied_slices<tile.d / 64>(params.source, false));
        keys(memory.v_full, memory.v_empty, ptx::shared_address(memory.v), params.source.v, box, n,
             copied_slices<tile.d / 64>(params.source, true));
      }
      walk.advance();
    }
  }

  __device__ __forceinline__ void run() {
    int step = 0;
#pragma unroll 1
    for (BackwardItemReader<Shared> items{memory};;) {
      const BackwardItem& item = items.wait();
      if (item.key < 0) return;
      const int end = step + (item.queries.end - item.queries.begin) * params.source.heads_per_kv;
      if (step < end) {
        item_steps(item, step, end, items.n);
      } else {  // nobody sees the keys: nothing is loaded, and all go on
        ptx::mbarrier_wait(ptx::shared_address(&memory.k_empty), (items.n & 1) ^ 1);
        ptx::mbarrier_arrive(ptx::shared_address(&memory.k_full));
        ptx::mbarrier_wait(ptx::shared_address(&memory.v_empty), (items.n & 1) ^ 1);
        ptx::mbarrier_arrive(ptx::shared_address(&memory.v_full));
      }
      step = end;
      ptx::mbarrier_arrive(ptx::shared_address(&memory.items.wanted));
      items.done();
    }
  }
};

}  // namespace fattn::gpu::sm90
