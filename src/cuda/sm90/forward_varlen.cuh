// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/sm90/forward_dense.cuh"

// The answers of a source of sequences of any length: forward_dense.cuh says to what. A tile's row is a position of the
// sequence and one of the `group` heads that lie side by side.
namespace fattn::gpu::sm90 {

// Of one head. Without a list all sequences are taken to be as long as the longest, and rows behind the last packed one
// follow.
__device__ __forceinline__ int item_tiles(const VarlenSource& source, int m) {
  if (source.tiles != nullptr) return *source.tile_count;
  const int tiles = source.row_tiles * source.lengths.batch;
  if (source.lengths.q.cu_seqlens == nullptr) return tiles;
  return tiles + ceil_div(rows_behind(source.lengths.q, source.lengths.batch).rows << source.group_log2, m);
}

__device__ __forceinline__ int item_count(const VarlenSource& source, const Schedule& schedule, int m) {
  return item_tiles(source, m) * schedule.heads * source.splits;
}

// Later rows first: under a causal mask they take longest.
__device__ __forceinline__ PlacedTile tile_without_list(const VarlenSource& source, int entry, int m) {
  const int batch = source.lengths.batch, from_last = entry / batch;
  WorkTile tile{entry - from_last * batch, (source.row_tiles - 1 - from_last) * m};
  if (from_last >= source.row_tiles) tile = {batch, (entry - source.row_tiles * batch) * m};
  return {tile, source.lengths.queries(tile.sequence), source.lengths.keys(tile.sequence)};
}

template <class Params>
__device__ __forceinline__ Item find_item(const VarlenSource& source, const Params& params, VarlenSource::Place& place,
                                          int index, int m, int n) {
  const int rest = source.splits == 1 ? index : index / source.splits, split = index - rest * source.splits;
  // Heads are taken in sections, whose keys and values stay in the L2 cache.
  const int section_items = item_tiles(source, m) * params.schedule.section_heads, section = rest / section_items;
  const int first_head = section * params.schedule.section_heads, within = rest - section * section_items;
  const int here = min_of(params.schedule.section_heads, params.schedule.heads - first_head);
  const int entry = within / here;
  const PlacedTile at = source.tiles != nullptr ? source.tiles[entry] : tile_without_list(source, entry, m);
  const WorkTile tile = at.tile;
  Item item{};
  item.row = tile.row;
  item.head = first_head + within - entry * here;
  item.batch = tile.sequence;
  item.tiles = TileWalk::nothing();
  place = {at.q, at.k, 0, 0, split};
  const int rows = place.q.used << source.group_log2;
  if (tile.row >= rows) return item;
  const auto mask = params.mask.bind(place.q.used, place.k.used);
  const int last = min_of(tile.row + m, rows) - 1;
  item.tiles =
      walk_tiles(mask, tile.row >> source.group_log2, (last >> source.group_log2) + 1, n, {split, source.splits});
  if (item.tiles.sees_nothing()) return item;  // without keys: a split must not weigh what others do
  place.keys_begin = mask.visible(0).begin;
  place.keys_end = mask.visible(place.q.used - 1).end;
  return item;
}

__device__ __forceinline__ ptx::Box5 query_box(const VarlenSource& source, const Item& item,
                                               const VarlenSource::Place& place, int row) {
  return {{0, 0, place.q.begin + ((item.row + row) >> source.group_log2), item.head, place.q.batch}};
}

__device__ __forceinline__ ptx::Box5 key_box(const VarlenSource& source, const Item& item,
                                             const VarlenSource::Place& place) {
  return {{0, 0, place.k.begin, item.head / source.heads_per_kv, place.k.batch}};
}

template <class Mask>
__device__ __forceinline__ Interval visible_keys(const VarlenSource& source, const Mask& mask,
                                                 const VarlenSource::Place& place, int row) {
  const int query = row >> source.group_log2;
  if (query >= place.q.used) return {0, 0};
  const Interval keys = mask.bind(place.q.used, place.k.used).visible(query);
  return {max_of(keys.begin, place.keys_begin), min_of(keys.end, place.keys_end)};
}

// For ALiBi.
template <class Mask>
__device__ __forceinline__ int diagonal_of(const VarlenSource& source, const Mask& mask,
                                           const VarlenSource::Place& place, int row) {
  return mask.bind(place.q.used, place.k.used).diagonal(row >> source.group_log2);
}

__device__ __forceinline__ RowPlace row_place(const VarlenSource& source, const Item& item,
                                              const VarlenSource::Place& place, int row) {
  const int query = row >> source.group_log2;
  return {.batch = place.q.batch,
          .head = (item.head << source.group_log2) + (row - (query << source.group_log2)),
          .row = place.q.begin + query,
          .written = query < place.q.rows,
          .counts = query < place.q.used};
}

// A box of 64 rows of the output, from the item's row `row`. Packed, the next sequence begins where this one ends.
__device__ __forceinline__ ptx::Box5 output_box(const VarlenSource& source, const Item& item,
                                                const VarlenSource::Place& place, int row) {
  const int query = row >> source.group_log2, queries = 64 >> source.group_log2;
  if (source.lengths.q.cu_seqlens == nullptr) return {{0, 0, query, item.head, place.q.batch}};
  const int valid = min_of(queries, place.q.rows - query);
  return {{0, 0, queries - valid, place.q.begin + query + valid, item.head}};
}

__device__ __forceinline__ bool has_rows(const VarlenSource& source, const VarlenSource::Place& place, int row) {
  return row >> source.group_log2 < place.q.rows;
}

// Do all rows of the item up to row `last` count?
__device__ __forceinline__ bool all_count(const VarlenSource& source, const VarlenSource::Place& place, int last) {
  return last >> source.group_log2 < place.q.used;
}

// Keys behind a sequence belong to the next one, or to nobody.
__device__ __forceinline__ Interval seen_values(const VarlenSource&, const VarlenSource::Place& place, int key) {
  return {place.keys_begin - key, place.keys_end - key};
}

}  // namespace fattn::gpu::sm90
