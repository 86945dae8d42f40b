// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/ptx/bulk.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/backward_varlen.cuh"
#include "cuda/tile/pipeline.cuh"
#include "cuda/tile/swizzle.cuh"

namespace fattn::gpu::sm90 {

// The loading thread: keys and values once, then queries and dO of every step with what belongs to their rows.
template <class Traits>
struct BackwardLoad {
  static constexpr BackwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;
  using Ring = tile::RingStep<tile.stages>;
  static constexpr int kRowBytes = tile.m * sizeof(float), kTileBytes = sizeof(Shared::q[0]);

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
                                              ptx::Box5 box) {
    using Rows = tile::SwizzledTile<rows, tile.d>;
#pragma unroll
    for (int slice = 0; slice < Rows::kSlices; slice++) {
      box.at[0] = 64 * slice;
      ptx::tma_load(to + slice * Rows::kSliceBytes, &map, barrier, box);
    }
  }

  __device__ __forceinline__ void queries(const ptx::Box5& box, int step, int row) {
    const int stage = Ring::stage(step);
    const std::uint32_t full = at(memory.q_full, stage);
    ptx::mbarrier_wait(at(memory.q_empty, stage), Ring::parity(step) ^ 1);
    ptx::mbarrier_arrive_expect(full, kTileBytes + kRowBytes);
    load<tile.m>(at(memory.q, stage), params.source.q, full, box);
    ptx::bulk_load(at(memory.row_lse, stage), params.rows.lse + row, kRowBytes, full);
  }

  __device__ __forceinline__ void gradients(const ptx::Box5& box, int step, int row) {
    const int stage = Ring::stage(step);
    const std::uint32_t full = at(memory.dout_full, stage);
    ptx::mbarrier_wait(at(memory.dout_empty, stage), Ring::parity(step) ^ 1);
    ptx::mbarrier_arrive_expect(full, kTileBytes + kRowBytes);
    load<tile.m>(at(memory.dout, stage), params.source.dout, full, box);
    ptx::bulk_load(at(memory.row_delta, stage), params.rows.delta + row, kRowBytes, full);
  }

  __device__ __forceinline__ void run() {
    const BackwardItem item = memory.item;
    const int steps = (item.queries.end - item.queries.begin) * params.source.heads_per_kv;
    if (steps == 0) return;
    const ptx::Box5 keys = key_box(params.source, memory.place, item, tile.n);
    const std::uint32_t k_full = ptx::shared_address(&memory.k_full), v_full = ptx::shared_address(&memory.v_full);
    ptx::mbarrier_arrive_expect(k_full, sizeof(Shared::k));
    load<tile.n>(ptx::shared_address(memory.k), params.source.k, k_full, keys);
    QueryWalk walk(item, params.source.heads_per_kv);
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
      const int row = (item.first_tile + walk.head * params.rows.query_tiles + walk.tile) * tile.m;
      const ptx::Box5 box = query_box(params.source, memory.place, item, walk, tile.m);
      queries(box, step, row);
      if (step == 0) {
        ptx::mbarrier_arrive_expect(v_full, sizeof(Shared::v));
        load<tile.n>(ptx::shared_address(memory.v), params.source.v, v_full, keys);
      }
      gradients(box, step, row);
      walk.advance();
    }
  }
};

}  // namespace fattn::gpu::sm90
