// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/address.cuh"
#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/named_barrier.cuh"
#include "cuda/ptx/shared.cuh"
#include "cuda/sm90/backward_dense.cuh"
#include "cuda/sm90/backward_rows.hpp"
#include "cuda/sm90/barriers.hpp"

// The answers of sequences of any length: backward_dense.cuh says to what.
namespace fattn::gpu::sm90 {

template <class Mask>
__device__ __forceinline__ auto bound_mask(const VarlenTensors&, const Mask& mask, const VarlenTensors::Place& place) {
  return mask.bind(place.q.used, place.k.used);
}

template <int slices>
__device__ __forceinline__ int copied_slices(const VarlenTensors& source, bool values) {
  return min_of(slices, values ? source.slices_v : source.slices);
}

// Zeros in the slices of K, V, Q and dO that are not copied. Every thread of the block comes here.
template <BackwardTile tile, class Shared>
__device__ __forceinline__ void clear_other_slices(const VarlenTensors& source, Shared& memory) {
  constexpr int slices = tile.d / 64;
  const auto clear = [](const void* array, int rows, int from) {
    const std::uint32_t to = ptx::shared_address(array);
    for (int at = from * rows * 128 + 16 * threadIdx.x; at < slices * rows * 128; at += 16 * tile.threads())
      ptx::clear_shared_16(to + at);
  };
  const int some = copied_slices<slices>(source, false), some_v = copied_slices<slices>(source, true);
  clear(memory.k, tile.n, some), clear(memory.v, tile.n, some_v);
  for (int stage = 0; stage < tile.stages; stage++)
    clear(memory.q[stage], tile.m, some), clear(memory.dout[stage], tile.m, some_v);
  ptx::fence_proxy_async();
}

// A negative key: there is no such item.
template <BackwardTile tile, class Params>
__device__ __forceinline__ BackwardItem find_item(const VarlenTensors& source, const Params& params,
                                                  VarlenTensors::Place& place, int index) {
  const VarlenLengths& lengths = source.lengths;
  BackwardSchedule schedule = params.schedule;
  int sequence = -1;
  if (source.tiles != nullptr) {
    const int entry = index / schedule.heads;
    if (entry >= *source.tile_count) return {.key = -1};
    const WorkTile listed = source.tiles[entry];
    sequence = listed.sequence;
    index -= (entry - listed.row / tile.n) * schedule.heads;  // from the sequence's first
  }
  if (sequence >= 0) {
    place.q = sequence == lengths.batch ? SequenceRows{} : sequence_rows(lengths.q, sequence);
    place.k = sequence == lengths.batch ? rows_behind(lengths.k, sequence) : sequence_rows(lengths.k, sequence);
    schedule.batch = 1;
    schedule.key_tiles = ceil_div(place.k.rows, tile.n);
    schedule.section_heads = min_of(max_of(source.section_rows / max_of(place.q.used, 1), 1), schedule.heads);
    // As on the host: key tiles that take equally long go head by head.
    const auto mask = bound_mask(source, params.mask, place);
    const int last_key = (max_of(place.k.used, 1) - 1) / tile.n * tile.n;
    const TileRange first = BackwardSchedule::query_tiles(mask, 0, tile.m, tile.n);
    const TileRange last = BackwardSchedule::query_tiles(mask, last_key, tile.m, tile.n);
    if (first.end - first.begin == last.end - last.begin && !params.rows.in_turn) schedule.section_heads = 1;
  }
  BackwardItem item = schedule.item(index, tile.n);
  if (sequence < 0) {
    sequence = item.batch;
    place.q = sequence_rows(lengths.q, sequence);
    place.k = sequence_rows(lengths.k, sequence);
  }
  item.batch = sequence;
  item.first_tile = lengths.q.cu_seqlens != nullptr ? first_query_tile(place.q, sequence, tile.m)
                                                    : sequence * params.rows.heads_q * params.rows.query_tiles;
  const auto mask = bound_mask(source, params.mask, place);
  item.queries = BackwardSchedule::query_tiles(mask, item.key, tile.m, tile.n);
  item.start = schedule.start(item);
  if (item.queries.begin == item.queries.end) return item;
  place.keys_begin = mask.visible(0).begin;
  place.keys_end = mask.visible(place.q.used - 1).end;
  return item;
}

// The first `valid` of a box's rows, from row `row` of a buffer (encode_ragged): the others read as zeros.
__device__ __forceinline__ ptx::Box5 ragged_box(int row, int valid, int rows, int head, int batch) {
  return {{0, rows - valid, row + valid, head, batch}};
}

__device__ __forceinline__ ptx::Box5 query_box(const VarlenTensors&, const VarlenTensors::Place& place,
                                               const BackwardItem&, const QueryWalk& walk, int m) {
  const int row = walk.tile * m;
  return ragged_box(place.q.begin + row, min_of(m, place.q.used - row), m, walk.head, place.q.batch);
}

__device__ __forceinline__ ptx::Box5 key_box(const VarlenTensors&, const VarlenTensors::Place& place,
                                             const BackwardItem& item, int n) {
  const int seen = max_of(0, min_of(n, place.keys_end - item.key));
  return ragged_box(place.k.begin + item.key, seen, n, item.head, place.k.batch);
}

__device__ __forceinline__ ptx::Box5 key_gradient_box(const VarlenTensors&, const VarlenTensors::Place& place,
                                                      const BackwardItem& item, int first, int rows) {
  const int key = item.key + first, valid = max_of(0, min_of(rows, place.k.rows - key));
  return ragged_box(place.k.begin + key, valid, rows, item.head, place.k.batch);
}

// Keys before the first that some query sees may be anything, and 0 * NaN is NaN. All computing warpgroups come here,
// with the number of items before.
template <class Traits, class Shared>
__device__ __forceinline__ void clear_unseen_keys(Shared& memory, int items) {
  constexpr BackwardTile tile = Traits::tile;
  constexpr int threads = 128 * tile.compute_warpgroups(), slice_chunks = tile.n * 8;
  const int unseen = memory.place[items & 1].keys_begin - memory.item[items & 1].key;
  if (unseen <= 0) return;
  ptx::mbarrier_wait(ptx::shared_address(&memory.k_full), items & 1);
  ptx::mbarrier_wait(ptx::shared_address(&memory.v_full), items & 1);
  const std::uint32_t k = ptx::shared_address(memory.k), v = ptx::shared_address(memory.v);
  for (int at = threadIdx.x - 128; at < static_cast<int>(sizeof(Shared::k) / 16); at += threads) {
    if (at % slice_chunks / 8 >= unseen) continue;
    ptx::clear_shared_16(k + 16 * at);
    ptx::clear_shared_16(v + 16 * at);
  }
  ptx::fence_proxy_async();
  ptx::named_barrier_sync(static_cast<int>(BackwardBarrier::compute), threads);
}

}  // namespace fattn::gpu::sm90
