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

// Blocks in the order they start, or teams of blocks. Heads are taken in sections whose queries, gradients and sums
// stay in the L2 cache; in a section the first key tiles of all heads come first, because under a causal mask they take
// longest.
struct BackwardSchedule {
  int items;
  int key_tiles;      // of one head
  int section_heads;  // (batch, key head) pairs taken together
  int heads;          // of keys
  int batch;
  int direction;  // 1: an item walks from its first query tile to its last; -1: the other way
  int spread;     // items of a head begin with query tiles far from each other, so that they add in different places
  // Additions in a fixed order without waiting: `workers` blocks that run at the same time share a head and never are
  // at the same query tile; `teams` of them take heads in turn. 0: items go to whoever comes first. `paired`: key tiles
  // get shorter, and a worker takes a long one of one head, then a short one of the next, from the last query tile to
  // the first.
  int workers;
  int teams;
  int paired;

  // How often the workers of a team go over a head.
  FATTN_HD int rounds() const { return ceil_div(key_tiles, workers); }
  FATTN_HD int blocks() const { return workers * teams; }
  // Items of all blocks, in turn; some of them are none.
  FATTN_HD int team_items() const {
    const int pairs = heads * batch;
    return (paired ? 2 * ceil_div(ceil_div(pairs, 2), teams) : ceil_div(pairs, teams)) * rounds() * blocks();
  }

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

  // The same for a team; a negative key: there is no such item.
  FATTN_HD BackwardItem team_item(int index, int n) const {
    const int block = index % blocks(), step = index / blocks();
    const int team = block / workers, worker = block - team * workers;
    const int steps = paired ? 2 * rounds() : rounds();  // for a head, or a pair
    const int turn = step % steps;
    const bool second = paired && turn % 2 == 1;
    int pair = step / steps * teams + team;
    BackwardItem item{};
    item.direction = second ? -1 : 1;
    if (paired) {
      pair = 2 * pair + turn % 2;
      item.key_tile = turn / 2 + (second ? workers - 1 - worker : worker) * rounds();
    } else {
      item.key_tile = turn * workers + worker;
    }
    item.key = pair < heads * batch && item.key_tile < key_tiles ? item.key_tile * n : -1;
    item.batch = pair / heads;
    item.head = pair - item.batch * heads;
    return item;
  }
  FATTN_HD int team_start(const BackwardItem& item) const {
    if (item.direction < 0) return item.queries.end - 1;
    if (paired) return item.queries.begin;
    const long long tiles = item.queries.end - item.queries.begin;
    return static_cast<int>(item.key_tile % workers * tiles / workers);
  }
};

// The whole part of a / b for 0 <= a < 2^30, where `inverse` is 1 / b.
FATTN_HD int quotient(int a, int b, float inverse) {
  const int near = static_cast<int>(static_cast<float>(a) * inverse), rest = a - near * b;
  return rest < 0 ? near - 1 : rest >= b ? near + 1 : near;
}

// Whose turn an item of a team is at a query tile: how many key tiles add before it, round by round, workers in the
// order in which they reach the query tile.
struct TeamTurns {
  int workers;
  int paired;
  int forward;
  int round;   // of the team over the head
  int place;   // the item's, among those of the round
  int here;    // items of the round, where not paired
  int before;  // items of earlier rounds, where not paired
  int divisor;
  float inverse;

  TeamTurns() = default;
  FATTN_HD TeamTurns(const BackwardSchedule& schedule, const BackwardItem& item)
      : workers(schedule.workers), paired(schedule.paired), forward(item.direction > 0) {
    const int k = item.key_tile;
    if (paired) {
      divisor = schedule.rounds();
      round = k % divisor, place = k / divisor;
    } else {
      divisor = item.queries.end;
      round = k / workers, place = k % workers;
      before = k - place;
      here = min_of(workers, schedule.key_tiles - before);
    }
    inverse = 1.f / static_cast<float>(max_of(divisor, 1));
  }

  // `seen` are the key tiles that the query tile sees.
  FATTN_HD int at(int query_tile, const TileRange& seen) const {
    if (paired) {
      const int whole = quotient(seen.end, divisor, inverse), rest = seen.end - whole * divisor;
      const int first = rest > round ? whole : whole - 1;  // the last of the round that is seen
      return whole * round + min_of(rest, round) + (forward ? first - place : place);
    }
    // Who begins at the query tile or shortly before it comes first, then who begins before that one.
    const int first = min_of(quotient((query_tile + 1) * workers - 1, divisor, inverse), here - 1);
    return before + first - place + (place <= first ? 0 : here);
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
