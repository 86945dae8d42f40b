// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/softmax/scores-inl.hpp"

// The forward pass for one tile of queries of one head: FlashAttention's loop over tiles of keys with an online
// softmax. Scores are held transposed, a vector is one key and kLanes queries: maxima and sums are then lane by lane, K
// needs no transposition, and the weights lie as the left side of P V wants them.
namespace fattn::host::FATTN_TARGET {

static_assert(kTileSide % kPanel == 0, "the queries of a tile fill whole panels of Q K^T");
static_assert(kTileSide % kBlockRows == 0 && kHalfTileSide % kBlockRows == 0,
              "micro-kernels write whole blocks of rows into a tile");

// Rows without a sum to divide by are written as "no visible key".
inline void write_empty_rows(const ForwardWork& work, std::int64_t batch, std::int64_t head, std::int64_t begin,
                             std::int64_t end) {
  const Geometry& g = work.plan.geometry;
  for (std::int64_t row = begin; row < end; ++row) {
    __builtin_memset(work.plan.o.at(work.buffers.o, batch, row, head), 0,
                     static_cast<std::size_t>(g.dv) * static_cast<std::size_t>(work.plan.o.element_bytes));
    if (g.problem.return_lse) work.buffers.lse[g.lse_offset(batch, row, head)] = -kInfinity;
  }
}

// One finished row: its maximum (of raw scores where the problem is plain), its sum and o before the division.
inline void write_row(const ForwardWork& work, std::int64_t batch, std::int64_t head, std::int64_t at, float top,
                      float sum, float* row) {
  const ForwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const auto exp_double = [](double x) { return __builtin_exp(x); };
  const double max = static_cast<double>(top) * (g.plain ? static_cast<double>(g.scale) : 1.0);
  SoftmaxState<double> state{max, static_cast<double>(sum)};
  double keep = 1;
  if (g.problem.sinks) {
    keep = merge(state, SoftmaxState<double>{static_cast<double>(work.buffers.sinks[head]), 1.0}, exp_double).a;
  }
  // NaN in every score leaves no maximum either, but a sum: it goes on into o and lse.
  if (state.max == -static_cast<double>(kInfinity) && !__builtin_isnan(sum)) {
    return write_empty_rows(work, batch, head, at, at + 1);
  }
  if (g.problem.return_lse) {
    work.buffers.lse[g.lse_offset(batch, at, head)] = static_cast<float>(state.max + __builtin_log(state.sum));
  }
  // No key: 0, also where a tile's NaN has passed by.
  if (top == -kInfinity) __builtin_memset(row, 0, static_cast<std::size_t>(g.dv) * sizeof(float));
  keep *= static_cast<double>(g.dropout.factor);
  store_row(plan.o.dtype, row, static_cast<float>(keep / state.sum), g.dv, plan.o.at(work.buffers.o, batch, at, head));
}

// One row of one part of the keys, for merge_row().
inline void keep_part(const ForwardWork& work, std::int64_t item, int row, float top, float sum, const float* o) {
  float* const part = work.part(item, row);
  part[0] = top;
  part[1] = sum;
  __builtin_memcpy(part + 2, o, static_cast<std::size_t>(work.plan.geometry.dv) * sizeof(float));
}

// The parts of one row, in the order of the keys, into the first; then the row.
inline void merge_row(const ForwardWork& work, std::int64_t item, int i, std::int64_t batch, std::int64_t head,
                      std::int64_t at) {
  const ForwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const double c = static_cast<double>(g.plain ? g.scale : 1.0f);
  float top = -kInfinity;
  for (std::int64_t split = 0; split < plan.splits; ++split) {
    const float part = work.part(item * plan.splits + split, i)[0];
    top = part > top ? part : top;
  }
  float* const row = work.part(item * plan.splits, i);
  double sum = 0;
  bool first = true;
  for (std::int64_t split = 0; split < plan.splits; ++split) {
    const float* const part = work.part(item * plan.splits + split, i);
    if (part[0] == -kInfinity && !__builtin_isnan(part[1])) continue;  // it saw no key
    const double factor = __builtin_exp((static_cast<double>(part[0]) - static_cast<double>(top)) * c);
    sum += static_cast<double>(part[1]) * factor;
    const float f = static_cast<float>(factor);
    for (int j = 2; j < g.dv + 2; ++j) row[j] = first ? part[j] * f : row[j] + part[j] * f;
    first = false;
  }
  write_row(work, batch, head, at, top, static_cast<float>(sum), row + 2);
}

// Queries of an item: where their tile begins, and how many there are.
struct ItemRows {
  std::int64_t batch, head, tile;
  Rows queries;
  int query;
  int rows;
};
inline ItemRows rows_of_item(const ForwardWork& work, std::int64_t item) {
  const ForwardPlan& plan = work.plan;
  const std::int64_t tile = plan.q_tiles - 1 - item % plan.q_tiles;
  const std::int64_t head = item / plan.q_tiles % plan.geometry.problem.heads_q;
  const std::int64_t batch = item / plan.q_tiles / plan.geometry.problem.heads_q;
  const Rows queries = plan.geometry.queries(work.buffers, batch);
  const int query = static_cast<int>(tile) * plan.tile.q;
  return {batch, head, tile, queries, query, min_of(queries.length - query, plan.tile.q)};
}

// One part of the keys that the queries [at.query, query_end) of a sequence see, for all rows of an item.
inline void walk_keys(const ForwardWork& work, const ScoreTile& like, const ItemRows& at, int query_end,
                      const Rows& keys, int split, const ForwardScratch& scratch) {
  const ForwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const TileRange tiles = like.band.tiles(at.query, query_end, plan.tile.k);
  const int part = plan.splits > 1 ? kSplitKeys / plan.tile.k : tiles.end;
  const int begin = max_of(tiles.begin, split * part), end = min_of(tiles.end, (split + 1) * part);
  const Marker marker = g.marker(work.buffers, at.batch, at.head, at.queries, keys);
  ScoreTile group[kMostTiles];
  int grouped = 0;
  for (int t = begin; t < end; ++t) {
    ScoreTile tile = like;
    tile.key = t * plan.tile.k;
    tile.keys = min_of(plan.tile.k, keys.length - tile.key);
    tile.masked = t < tiles.interior_begin || t >= tiles.interior_end;
    const Share share = g.hides ? marker.mask.share(at.query, query_end, tile.key, tile.key + tile.keys) : Share::all;
    if (share == Share::none) continue;
    const MarkedTile marked{at.query, at.rows, tile.key, tile.keys, scratch.marks, plan.tile.q, plan.tile.k, true};
    tile.marks = share == Share::some || g.drops ? scratch.marks : nullptr;
    if (tile.marks != nullptr) mark_tile(marker, share, marked);

    const bool* seen = nullptr;
    if (tile.masked || share == Share::some) seen = scratch.seen;
    if (share == Share::some) {
      look_at_keys(marked, scratch.first, scratch.last, scratch.seen);
    } else if (tile.masked) {
      mark_seen_keys(like.band, at.query, query_end, tile.key, tile.keys, scratch.seen);
    }
    const std::int64_t head_kv = at.head / g.group, first = keys.begin + tile.key;
    const RowsSource v = plan.v.rows(work.buffers.v, at.batch, first, head_kv, tile.keys, g.dv, seen);
    load_keys(plan, plan.k.rows(work.buffers.k, at.batch, first, head_kv, tile.keys, g.d, seen), v, grouped, scratch);
    if (scratch.bias != nullptr) {
      pack_transposed(g.bias(work.buffers, at.batch, at.head, at.query, tile.key, at.rows, tile.keys), scratch.bias);
    }
    group[grouped++] = tile;
    if (grouped < plan.tile.group) continue;
    RowsAhead ahead;
    if (t + 1 < end) {
      const int key = tile.key + tile.keys;
      const int rows = min_of(min_of(plan.tile.group, end - t - 1) * plan.tile.k, keys.length - key);
      ahead = {plan.k.rows(work.buffers.k, at.batch, keys.begin + key, head_kv, rows, g.d),
               plan.v.rows(work.buffers.v, at.batch, keys.begin + key, head_kv, rows, g.dv),
               grouped * ceil_div(at.rows, kPanel)};
    }
    forward_step(plan, group, grouped, ahead, scratch);
    grouped = 0;
  }
  if (grouped > 0) forward_step(plan, group, grouped, RowsAhead(), scratch);
}

}  // namespace fattn::host::FATTN_TARGET

#include "cpu/few_queries-inl.hpp"

namespace fattn::host::FATTN_TARGET {

inline void merge_parts(const ForwardWork& work, std::int64_t item) {
  if (work.plan.fold > 0) return merge_few(work, item);
  const ItemRows at = rows_of_item(work, item);
  for (int i = 0; i < at.rows; ++i) {
    merge_row(work, item, i, at.batch, at.head, at.queries.begin + at.query + i);
  }
}

// The largest logit of an item's rows, NaN if one of them is. Maxima of raw scores have passed over NaN; the sums have
// not.
inline float largest_logit(const Geometry& g, const ForwardScratch& scratch, int rows) {
  const float* const tops = g.plain ? largest_raw_scores(scratch) : scratch.max_logit;
  float top = -kInfinity;
  for (int i = 0; i < rows; ++i) {
    const bool lost = g.plain && __builtin_isnan(scratch.sum[i]) && tops[i] != kInfinity;
    top = larger(top, lost ? scratch.sum[i] : tops[i]);
  }
  return g.plain ? top * g.scale : top;
}

// item: (batch, query head, query tile, part of the keys), the last tile first, because causal masks give it the most
// work.
inline void forward_item(const ForwardWork& work, std::int64_t item, int lane) {
  const ForwardPlan& plan = work.plan;
  if (plan.fold > 0) return few_item(work, item, lane);
  const Geometry& g = plan.geometry;
  const int split = static_cast<int>(item % plan.splits);
  const ItemRows at = rows_of_item(work, item / plan.splits);
  const std::int64_t batch = at.batch, head = at.head;
  const Rows &queries = at.queries, keys = g.keys(work.buffers, batch);
  const int query = at.query, rows = at.rows;

  // Rows past the length: this tile's, and in the last tile all that follow.
  if (split == 0) {
    const std::int64_t allocated = queries.end - queries.begin;
    const std::int64_t tile_end = at.tile + 1 == plan.q_tiles ? allocated : std::int64_t{query} + plan.tile.q;
    write_empty_rows(work, batch, head, queries.begin + max_of(query, queries.length),
                     queries.begin + (tile_end < allocated ? tile_end : allocated));
  }
  float* const max_logit = g.problem.return_max_logit ? work.max_logits + item : nullptr;
  if (max_logit != nullptr) *max_logit = -kInfinity;
  if (rows <= 0) return;

  const ForwardScratch scratch = work.scratch(lane);
  const Band band = g.band(work.buffers, batch, queries, keys);
  const int padded = round_up(rows, kPanel);
  for (int i = 0; i < padded; ++i) {
    const Interval visible = i < rows ? band.visible(query + i) : Interval{0, kUnbounded};
    scratch.first[i] = visible.begin;
    scratch.last[i] = visible.end;
    scratch.max[i] = scratch.max_logit[i] = -kInfinity;
    scratch.sum[i] = 0;
  }
  begin_item(plan, plan.q.rows(work.buffers.q, batch, queries.begin + query, head, rows, g.d), scratch);

  const ScoreTile like{.band = band,
                       .query = query,
                       .rows = rows,
                       .slope = g.slope(work.buffers, batch, head),
                       .marks_stride = plan.tile.q};
  walk_keys(work, like, at, query + rows, keys, split, scratch);
  for (int i = 0; i < rows; ++i) {
    if (i % kPanel == 0 && writes_panel(work, batch, head, queries.begin + query, rows, i, scratch)) {
      i += kPanel - 1;
      continue;
    }
    float* const row = output_row(plan, i, scratch);
    if (plan.splits > 1) {
      keep_part(work, item, i, scratch.max[i], scratch.sum[i], row);
    } else {
      write_row(work, batch, head, queries.begin + query + i, scratch.max[i], scratch.sum[i], row);
    }
  }
  if (max_logit != nullptr) *max_logit = largest_logit(g, scratch, rows);
}

inline constexpr ForwardParts kForwardParts{forward_item, merge_parts};
inline constexpr Blocking kBlocking{kBlockRows, kPanel, kKernelText, kPairs, kWholeTiles};

}  // namespace fattn::host::FATTN_TARGET
