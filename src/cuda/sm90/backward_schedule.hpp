// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/host_device.hpp"
#include "algebra/mask_band.hpp"

// Which work the backward kernel has and in which order: pure arithmetic, the same on the host and the device.
namespace fattn::gpu::sm90 {

// One block's work: a tile of keys of one key head, and the query tiles that see some of them.
struct BackwardItem {
  int key;  // the first
  int key_tile;
  int head;  // of keys
  int batch;
  int first_tile;     // of the sequence's queries in the workspace, for query head 0
  int direction;      // of its steps: 1 or -1
  int start;          // the query tile that it begins with; after the last comes the first
  TileRange queries;  // tiles in [interior_begin, interior_end) need no element mask
};

// Blocks in the order they start. Heads are taken in sections whose queries, gradients and sums stay in the L2 cache;
// in a section the first key tiles of all heads come first, because under a causal mask they take longest.
struct BackwardSchedule {
  int items;
  int key_tiles;      // of one head
  int section_heads;  // (batch, key head) pairs taken together
  int heads;          // of keys
  int batch;
  int direction;  // 1: an item walks from its first query tile to its last; -1: the other way
  int spread;     // items of a head begin with query tiles far from each other, so that they add in different places

  // Where an item lies; n is the size of a tile of keys. Its queries are left to whoever knows the lengths.
  FATTN_HD BackwardItem item(int index, int n) const {
    const int section_items = section_heads * key_tiles, section = index / section_items;
    const int rest = index - section * section_items, first = section * section_heads;
    const int here = min_of(section_heads, heads * batch - first);
    const int pair = first + rest % here;
    BackwardItem item{};
    item.key_tile = rest / here;
    item.key = item.key_tile * n;
    item.batch = pair / heads;
    item.head = pair - item.batch * heads;
    item.direction = direction;
    return item;
  }

  // Which query tile an item begins with, when its queries are known.
  FATTN_HD int start(const BackwardItem& item) const {
    if (direction < 0) return item.queries.end - 1;
    if (!spread) return item.queries.begin;
    const long long tiles = item.queries.end - item.queries.begin;
    return item.queries.begin + static_cast<int>(item.key_tile * tiles / key_tiles);
  }

  // `mask` is bound to the sequence, m and n are the sizes of tiles. Keys past the end weigh nothing, whatever the
  // log-sum-exp is: a tile that holds some has no interior.
  template <class BoundMask>
  FATTN_HD static TileRange query_tiles(const BoundMask& mask, int key, int m, int n) {
    if (mask.right < -mask.left || key >= mask.seqlen_k) return {0, 0, 0, 0};  // no query sees a key
    TileRange range = mask.tiles_for(key, min_of(key + n, mask.seqlen_k), m);
    if (key + n > mask.seqlen_k) range.interior_end = range.interior_begin;
    return range;
  }
};

// The steps of an item: the query tiles of one head after the other.
struct QueryWalk {
  int first;
  int past;  // the tile after the last
  int start;
  int direction;
  int tile;
  int head;  // of queries

  FATTN_HD QueryWalk(const BackwardItem& item, int heads_per_kv)
      : first(item.direction > 0 ? item.queries.begin : item.queries.end - 1),
        past(item.direction > 0 ? item.queries.end : item.queries.begin - 1),
        start(item.start),
        direction(item.direction),
        tile(start),
        head(item.head * heads_per_kv) {}
  FATTN_HD void advance() {
    tile += direction;
    if (tile == past) tile = first;
    if (tile == start) head++;
  }
};

// Queries that see a key.
template <class BoundMask>
FATTN_HD Interval queries_of(const BoundMask& mask, int key) {
  if (key >= mask.seqlen_k) return {0, 0};
  const TileRange queries = mask.tiles_for(key, key + 1, 1);
  return {queries.begin, queries.end};
}

}  // namespace fattn::gpu::sm90
