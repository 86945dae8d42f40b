// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/common/merge.hpp"
#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/named_barrier.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/forward_params.hpp"
#include "cuda/sm90/forward_varlen.cuh"
#include "cuda/tile/fragment.cuh"
#include "cuda/tile/softmax.cuh"

namespace fattn::gpu::sm90 {

inline constexpr float kLn2 = 0.6931471805599453f, kLog2e = 1.4426950408889634f;

// Writes the 64 rows of an item that one computing warpgroup owns. Rows past the end of the sequence are left out.
template <class Traits>
struct ForwardStore {
  static constexpr ForwardTile tile = Traits::tile;
  using Shared = typename Traits::Shared;
  using Source = typename Traits::Source;
  static constexpr bool kThroughBuffer = tile.output == OutputWay::buffer;

  const typename Traits::Params& params;
  const Shared& memory;
  std::uint32_t shared;
  int warpgroup;

  // All four warps of the warpgroup meet.
  __device__ __forceinline__ void meet() const {
    ptx::named_barrier_sync(static_cast<int>(ForwardBarrier::warps) + warpgroup, 128);
  }

  __device__ __forceinline__ RowPlace place(const Item& item, int r) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    return row_place(params.source, item, memory.places[item.slot],
                     item.row + 64 * warpgroup + 16 * warp + lane / 4 + 8 * r);
  }

  // What the row's output has to be multiplied by; writes the row's log-sum-exp. A sink enters the sum only.
  __device__ __forceinline__ float finish_row(const Item& item, const RowPlace& at, float reference, float sum) const {
    if constexpr (Source::kVarlen)
      if (!at.counts) reference = -INFINITY, sum = 0.f;
    float factor = 1.f;
    if (params.sinks != nullptr && at.counts && at.written) {
      const float sink = kLog2e * params.sinks[at.head], top = fmaxf(reference, sink);
      if (top > -INFINITY) {
        factor = ptx::exp2_approx(reference - top);
        sum = sum * factor + ptx::exp2_approx(sink - top);
        reference = top;
      }
    }
    if (threadIdx.x % 4 == 0 && at.written) {
      const float lse = kLn2 * (reference + ptx::log2_approx(sum));
      const std::int64_t index = params.lse_layout.at(at.batch, at.head, at.row);
      if constexpr (Source::kVarlen) {
        if (params.source.splits > 1) {
          params.source.partial_lse[memory.places[item.slot].split * params.source.partial_rows + index] =
              at.counts ? lse : kUncounted;
          return factor * ptx::reciprocal_approx(sum);
        }
      }
      if (params.lse != nullptr) params.lse[index] = lse;
    }
    return factor * ptx::reciprocal_approx(sum);
  }

  __device__ __forceinline__ void max_logit(const RowPlace& at, float top) const {
    if (params.score.max_logit == nullptr || threadIdx.x % 4 != 0 || !at.written || !at.counts) return;
    // Floats of one sign are ordered as integers, NaN behind all others.
    auto* to = reinterpret_cast<int*>(params.score.max_logit + at.head);
    top = top != top ? __uint_as_float(0x7FC00000u) : top + 0.f;  // -0 becomes 0
    if (!(top < 0.f))
      atomicMax(to, __float_as_int(top));
    else
      atomicMin(reinterpret_cast<unsigned*>(to), __float_as_uint(top));
  }

  // What the output needs of the softmax.
  struct Finish {
    float inverse[2];  // of the row sums
    bool empty[2];     // the row has no key
  };

  // Writes what does not depend on the output. Called while the last product runs.
  __device__ __forceinline__ Finish finish_rows(const Item& item, const tile::SoftmaxRows& rows,
                                                const float (&top_logit)[2]) const {
    Finish finish;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const RowPlace at = place(item, r);
      const float sum = tile::row_sum(rows.sum[r]);
      finish.inverse[r] = finish_row(item, at, rows.reference[r], sum);
      finish.empty[r] = sum == 0.f || !at.counts;
      // Maxima lose NaN, sums do not.
      if constexpr (Traits::Score::kModified) max_logit(at, sum != sum && top_logit[r] < INFINITY ? sum : top_logit[r]);
    }
    ptx::pin(finish.inverse);
    return finish;
  }

  // The thread that hands the output to the copy engine, before the warps meet for another reason: when they have met,
  // what was staged before is read.
  __device__ __forceinline__ void staging_is_free() const {
    if constexpr (kThroughBuffer)
      if (threadIdx.x % 128 == 0) ptx::tma_store_wait_read<0>();
  }

  // Divides by the row sums. A row without a key becomes 0, whatever its values were. `stage` is that of the values'
  // ring through which the output leaves, where it does.
  __device__ __forceinline__ void operator()(const Item& item, const Finish& finish, float (&output)[tile.dv / 2],
                                             int stage) const {
    tile::scale_rows(output, finish.inverse);
    if (__any_sync(~0u, finish.empty[0] || finish.empty[1])) {
#pragma unroll
      for (int i = 0; i < tile.dv / 2; i++)
        if (finish.empty[(i / 2) % 2]) output[i] = 0.f;
    }
    if constexpr (Source::kVarlen) {
      if (params.source.splits > 1) return store_partial(item, {place(item, 0), place(item, 1)}, output);
    }
    if constexpr (kThroughBuffer)
      store_box(item, output, shared + offsetof(Shared, o) + warpgroup * Shared::kBytesO);
    else if constexpr (tile.output == OutputWay::values)
      store_box(item, output, shared + offsetof(Shared, v) + stage * Shared::kBytesV);
    else
      store_rows({place(item, 0), place(item, 1)}, output);
  }

  // Through shared memory and the copy engine.
  __device__ __forceinline__ void store_box(const Item& item, const float (&output)[tile.dv / 2],
                                            std::uint32_t staging) const {
    using Rows = tile::SwizzledTile<64, tile.dv>;
    tile::store_accumulator<typename Traits::Element, 64, tile.dv>(output, staging, 16 * (threadIdx.x / 32 % 4));
    ptx::fence_proxy_async();
    meet();
    const int row = item.row + 64 * warpgroup;
    const auto& place = memory.places[item.slot];
    if (threadIdx.x % 128 == 0 && has_rows(params.source, place, row)) {
      ptx::Box5 box = output_box(params.source, item, place, row);
#pragma unroll
      for (int slice = 0; slice < Rows::kSlices; slice++) {
        box.at[0] = 64 * slice;
        ptx::tma_store(&params.source.o, staging + slice * Rows::kSliceBytes, box);
      }
      ptx::tma_store_commit();
    }
  }

  // Straight from registers: the four lanes of a row exchange until each holds 8 columns that lie side by side.
  __device__ __forceinline__ void store_rows(const RowPlace (&at)[2], const float (&output)[tile.dv / 2]) const {
    const int lane = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const RowsOut& o = params.o;
      auto* row = static_cast<std::uint16_t*>(o.data) + at[r].batch * o.batch + at[r].row * o.row + at[r].head * o.head;
#pragma unroll
      for (int block = 0; block < tile.dv / 8; block += 4) {
        std::uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int from = 4 * (block + i) + 2 * r;
          pairs[i] = ptx::pack<typename Traits::Element>(output[from], output[from + 1]);
        }
        tile::transpose_quad(pairs);
        const int column = 8 * (block + lane);
        if (at[r].written && column < o.columns)
          *reinterpret_cast<uint4*>(row + column) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
      }
    }
  }

  // This split's part of the rows, in fp32, for the merge kernel.
  __device__ __forceinline__ void store_partial(const Item& item, const RowPlace (&at)[2],
                                                const float (&output)[tile.dv / 2]) const {
    const std::int64_t split = memory.places[item.slot].split;
    const int columns = params.o.columns;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      if (!at[r].written) continue;
      const std::int64_t index =
          split * params.source.partial_rows + params.lse_layout.at(at[r].batch, at[r].head, at[r].row);
      float* row = params.source.partial_o + index * columns;
#pragma unroll
      for (int block = 0; block < tile.dv / 8; block++) {
        const int column = 8 * block + 2 * (threadIdx.x % 4), from = 4 * block + 2 * r;
        if (column < columns) *reinterpret_cast<float2*>(row + column) = make_float2(output[from], output[from + 1]);
      }
    }
  }

  // The copy engine reads this block's shared memory until then.
  __device__ __forceinline__ void finish() const {
    if (threadIdx.x % 128 == 0) ptx::tma_store_wait<0>();
  }
};

}  // namespace fattn::gpu::sm90
