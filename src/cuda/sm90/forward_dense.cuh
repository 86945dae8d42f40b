// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/ptx/tma.cuh"
#include "cuda/sm90/forward_params.hpp"

// What the kernel's roles ask a dense source; forward_varlen.cuh answers the same for sequences of any length.
namespace fattn::gpu::sm90 {

// Where a row of an item lies in O and LSE.
struct RowPlace {
  int batch;
  int head;
  int row;
  bool written;
  bool counts;  // else it is written as a row without keys
};

__device__ __forceinline__ int item_count(const DenseSource&, const Schedule& schedule, int) { return schedule.items; }

template <class Params>
__device__ __forceinline__ Item find_item(const DenseSource& source, const Params& params, DenseSource::Place&,
                                          int index, int m, int n) {
  Item item = params.schedule.item(index, m);
  const auto mask = params.mask.bind(source.seqlen_q, source.seqlen_k);
  item.tiles = walk_tiles(mask, max_of(item.row, 0), min_of(item.row + m, source.seqlen_q), n);
  return item;
}

__device__ __forceinline__ ptx::Box5 query_box(const DenseSource&, const Item& item, const DenseSource::Place&,
                                               int row) {
  return {{0, 0, item.row + row, item.head, item.batch}};
}

// The item's keys from key 0.
__device__ __forceinline__ ptx::Box5 key_box(const DenseSource& source, const Item& item, const DenseSource::Place&) {
  return {{0, 0, -source.first_key, item.head / source.heads_per_kv, item.batch}};
}

template <class Mask>
__device__ __forceinline__ Interval visible_keys(const DenseSource& source, const Mask& mask, const DenseSource::Place&,
                                                 int row) {
  return mask.bind(source.seqlen_q, source.seqlen_k).visible(row);
}

__device__ __forceinline__ RowPlace row_place(const DenseSource& source, const Item& item, const DenseSource::Place&,
                                              int row) {
  return {item.batch, item.head, row, row >= 0 && row < source.seqlen_q, true};
}

// A box of 64 rows of the output, from row `row`.
__device__ __forceinline__ ptx::Box5 output_box(const DenseSource&, const Item& item, const DenseSource::Place&,
                                                int row) {
  return {{0, 0, row, item.head, item.batch}};
}

__device__ __forceinline__ bool has_rows(const DenseSource& source, const DenseSource::Place&, int row) {
  return row >= 0 && row < source.seqlen_q;
}

__device__ __forceinline__ bool all_count(const DenseSource&, const DenseSource::Place&, int) { return true; }

// Rows outside [begin, end) of a tile hold what no query sees.
__device__ __forceinline__ Interval seen_values(const DenseSource&, const DenseSource::Place&, int) {
  return {0, 1 << 30};
}

}  // namespace fattn::gpu::sm90
