// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/named_barrier.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/forward_params.hpp"
#include "cuda/tile/fragment.cuh"
#include "cuda/tile/softmax.cuh"

namespace fattn::gpu::sm90 {

// Writes the 64 rows of an item that one computing warpgroup owns: O through shared memory and the copy engine, the
// log-sum-exp directly. Rows past the end of the sequence are left out.
template <class Traits>
struct ForwardStore {
  static constexpr ForwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;

  const typename Traits::Params& params;
  std::uint32_t shared;
  int warpgroup;

  // All four warps of the warpgroup meet.
  __device__ __forceinline__ void meet() const {
    ptx::named_barrier_sync(static_cast<int>(ForwardBarrier::warps) + warpgroup, 128);
  }

  __device__ __forceinline__ void lse(const Item& item, const tile::SoftmaxRows& rows, int r) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int row = item.row + 64 * warpgroup + 16 * warp + lane / 4 + 8 * r;
    if (params.lse == nullptr || lane % 4 != 0 || row >= params.source.seqlen_q) return;
    const long long head = static_cast<long long>(item.batch) * params.schedule.heads + item.head;
    constexpr float kLn2 = 0.6931471805599453f;
    params.lse[head * params.source.seqlen_q + row] = kLn2 * (rows.reference[r] + ptx::log2_approx(rows.sum[r]));
  }

  // Divides by the row sums. A row without a key becomes 0, whatever its values were.
  __device__ __forceinline__ void operator()(const Item& item, tile::SoftmaxRows rows,
                                             float (&output)[tile.dv / 2]) const {
    float inverse[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      rows.sum[r] = tile::row_sum(rows.sum[r]);
      inverse[r] = ptx::reciprocal_approx(rows.sum[r]);
      lse(item, rows, r);
    }
    tile::scale_rows(output, inverse);
    if (__any_sync(~0u, rows.sum[0] == 0.f || rows.sum[1] == 0.f)) {
#pragma unroll
      for (int i = 0; i < tile.dv / 2; i++)
        if (rows.sum[(i / 2) % 2] == 0.f) output[i] = 0.f;
    }
    const int bytes = sizeof(Shared::o) / tile.compute_warpgroups();
    const std::uint32_t staging = shared + offsetof(Shared, o) + warpgroup * bytes;
    const bool leader = threadIdx.x % 128 == 0;
    if (leader) ptx::tma_store_wait_read<0>();
    meet();  // the copy engine has read what was staged before
    tile::store_accumulator<typename Traits::Element, 64, tile.dv>(output, staging, 16 * (threadIdx.x / 32 % 4));
    ptx::fence_proxy_async();
    meet();
    const int row = item.row + 64 * warpgroup;
    if (leader && row < params.source.seqlen_q) {
      ptx::tma_store(&params.source.o, staging, {{0, row, 0, item.head, item.batch}});
      ptx::tma_store_commit();
    }
  }

  // The copy engine reads this block's shared memory until then.
  __device__ __forceinline__ void finish() const {
    if (threadIdx.x % 128 == 0) ptx::tma_store_wait<0>();
  }
};

}  // namespace fattn::gpu::sm90
