// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/backward_params.hpp"

// What the kernel's roles ask dense tensors; backward_varlen.cuh answers the same for sequences of any length.
namespace fattn::gpu::sm90 {

template <class Mask>
__device__ __forceinline__ auto bound_mask(const DenseTensors& source, const Mask& mask, const DenseTensors::Place&) {
  return mask.bind(source.seqlen_q, source.seqlen_k);
}

template <BackwardTile tile, class Params>
__device__ __forceinline__ BackwardItem find_item(const DenseTensors& source, const Params& params,
                                                  const DenseTensors::Place& place, int index) {
  const BackwardSchedule& schedule = params.schedule;
  const bool team = tile.wide && schedule.workers > 0;
  BackwardItem item = team ? schedule.team_item(index, tile.n) : schedule.item(index, tile.n);
  if (team && item.key < 0) return item;
  item.first_tile = item.batch * params.rows.heads_q * params.rows.query_tiles;
  item.queries = BackwardSchedule::query_tiles(bound_mask(source, params.mask, place), item.key, tile.m, tile.n);
  item.start = team ? schedule.team_start(item) : schedule.start(item);
  return item;
}

// How many slices of 64 columns are copied, of V and dO or of Q and K: the copy engine fills what lies past the
// columns.
template <int slices>
__device__ __forceinline__ int copied_slices(const DenseTensors&, bool) {
  return slices;
}

// The query tile of a step: rows past the end read as zeros.
__device__ __forceinline__ ptx::Box5 query_box(const DenseTensors&, const DenseTensors::Place&,
                                               const BackwardItem& item, const QueryWalk& walk, int m) {
  return {{0, 0, walk.tile * m, walk.head, item.batch}};
}

// The item's keys, to be read.
__device__ __forceinline__ ptx::Box5 key_box(const DenseTensors& source, const DenseTensors::Place&,
                                             const BackwardItem& item, int) {
  return {{0, 0, item.key - source.first_key, item.head, item.batch}};
}

// Their gradients, to be written: so many rows from the item's row `first`.
__device__ __forceinline__ ptx::Box5 key_gradient_box(const DenseTensors&, const DenseTensors::Place&,
                                                      const BackwardItem& item, int first, int) {
  return {{0, 0, item.key + first, item.head, item.batch}};
}

}  // namespace fattn::gpu::sm90
