// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/host_device.hpp"
#include "algebra/mask_band.hpp"

// Which work there is and in which order: pure arithmetic, the same on the host and the device.
namespace fattn::gpu::sm90 {

// The key tiles of one work item, walked from end - 1 down to begin, at least one. Tiles in [plain_begin, plain_end)
// need no element mask, and every row has met a key in the tiles walked before them.
struct TileWalk {
  int begin;
  int plain_begin;
  int plain_end;
  int end;
  int first_masked;  // tile end - 1 needs an element mask

  // One tile, all of it masked.
  FATTN_HD static TileWalk nothing() { return {0, 0, 0, 1, kNothing}; }
  FATTN_HD bool sees_nothing() const { return first_masked == kNothing; }
  static constexpr int kNothing = 2;
};

// Which of the parts into which the key tiles of an item are cut, counted from the last keys.
struct Split {
  int index;
  int count;
};

// The walk over tiles [begin, end), at least one; those that the queries look at are in `range`.
template <class BoundMask>
FATTN_HD TileWalk walk_between(const BoundMask& mask, int query_begin, int query_end, int tile, TileRange range,
                               int begin, int end) {
  const int interior_begin = min_of(max_of(range.interior_begin, begin), end);
  const int interior_end = max_of(min_of(range.interior_end, end), interior_begin);
  // The keys that every row sees. After the tile of the last of them each row has met a key.
  const int common_begin = mask.visible(query_end - 1).begin;
  const int common_end = min_of(mask.visible(query_begin).end, end * tile);
  const int met = common_end > common_begin ? (common_end - 1) / tile : begin;
  const int plain_end = max_of(interior_begin, min_of(met, interior_end));
  const bool first_masked = interior_begin == end || interior_end < end;
  return {begin, interior_begin, plain_end, end, first_masked};
}

// `mask` is bound to a sequence, with one interval of keys per query whose ends grow with the query.
template <class BoundMask>
FATTN_HD TileWalk walk_tiles(const BoundMask& mask, int query_begin, int query_end, int tile, Split split = {0, 1}) {
  const TileRange range = mask.tiles(query_begin, query_end, tile);
  const int part = ceil_div(range.end - range.begin, split.count);
  const int end = range.end - split.index * part, begin = max_of(range.begin, end - part);
  if (begin >= end) return TileWalk::nothing();
  return walk_between(mask, query_begin, query_end, tile, range, begin, end);
}

// An item's walk as some of its rows take it: without the last tile if they do not see it, unless the rows before them,
// whose walk ends at `end_before`, take it. Never without more: the loader is not so far ahead.
template <class BoundMask>
FATTN_HD TileWalk own_walk(const BoundMask& mask, int query_begin, int query_end, int tile, const TileWalk& all,
                           int end_before) {
  if (all.sees_nothing()) return all;
  const TileRange range = query_begin < query_end ? mask.tiles(query_begin, query_end, tile) : TileRange{0, 0, 0, 0};
  const int end = min_of(max_of(max_of(range.end, end_before), max_of(all.end - 1, all.begin + 1)), all.end);
  return walk_between(mask, query_begin, query_end, tile, range, all.begin, end);
}

// One item: `m` query rows of one head of one sequence, all their keys.
struct Item {
  int row;   // first query row; a head's first tile may begin before row 0, by whole warpgroups
  int head;  // negative: there is no more work
  int batch;
  int slot;  // of shared memory, where the rest is said
  TileWalk tiles;
  // Where warpgroups walk tiles of their own: how many of the item's this one leaves out, and where the first's walk
  // ends, which is the shortest. From there on products are issued in turn.
  int skipped;
  int common_end;

  FATTN_HD bool none() const { return head < 0; }
};

// Items in the order they are handed out. Heads are taken in sections whose keys and values stay in the L2 cache; in a
// section the later rows of all heads come first, because under a causal mask they take longest.
struct Schedule {
  int items;
  int row_tiles;      // of one head
  int section_heads;  // (batch, head) pairs taken together
  int heads;
  int batch;
  int queued;     // items differ in length: a block takes the next that is left, else every gridDim.x-th
  int first_row;  // of a head's first tile: not above 0

  // Row, head and batch of an item.
  FATTN_HD Item item(int index, int m) const {
    const int section_items = section_heads * row_tiles, section = index / section_items;
    const int rest = index - section * section_items, first = section * section_heads;
    const int here = min_of(section_heads, heads * batch - first);
    const int pair = first + rest % here;
    Item item{};
    item.row = first_row + (row_tiles - 1 - rest / here) * m;
    item.batch = pair / heads;
    item.head = pair - item.batch * heads;
    return item;
  }
};

}  // namespace fattn::gpu::sm90
