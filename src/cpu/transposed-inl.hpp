// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/backward-inl.hpp"

// The backward pass for plain problems on targets that multiply bf16 in pairs. Scores are held transposed as in the
// forward pass: S^T = K Q^T and dP^T = V dO^T for one panel of queries and one tile of keys. Rows of P^T and dS^T,
// rounded, are then left sides of dV and dK as they lie, and pairs of rows of dS^T the right side of dQ^T = K^T dS^T:
// nothing is transposed between the products. Gradients of one panel are computed between the tile instructions of its
// neighbours, see softmax/pairs-inl.hpp. dQ is summed as [panel][d][kPanel].
namespace fattn::host::FATTN_TARGET {

// Scores of one panel become weights exp(s - lse) and dP becomes dS, two keys at a time.
template <bool masked>
class Gradients {
 public:
  // at: the panel's first column of p and ds; key: the tile's first.
  Gradients(const TransposedScratch& scratch, const Panel& panel, float scale, int key, int keys)
      : s_(panel.s),
        dp_(panel.dp),
        p_(scratch.p + left_at(scratch.stride, 0, panel.query)),
        ds_(scratch.ds + left_at(scratch.stride, 0, panel.query)),
        pairs_(panel.pairs),
        depth_(scratch.stride),
        half_(scratch.half),
        pairs_half_(scratch.pairs_half),
        key_(key),
        keys_(keys),
        left_(keys / 2),
        scale_(splat(scale * kLog2e)) {
    FATTN_UNROLL(32)
    for (int j = 0; j < kPanelVecs; ++j) {
      const int lane = panel.query + j * kLanes;
      minus_lse_[j] = splat(-kLog2e) * load(scratch.lse + lane);
      delta_[j] = load(scratch.delta + lane);
      if (masked) first_[j] = load(scratch.first + lane), last_[j] = load(scratch.last + lane);
    }
  }

  // For the next `turns` turns: `share` of them have work to do, evenly spread.
  void spread(int share, int turns) { share_ = min_of(share, left_), turns_ = turns, credit_ = 0; }
  FATTN_INLINE void turn() {
    credit_ += share_;
    if (credit_ < turns_) return;
    credit_ -= turns_;
    pair();
  }
  static constexpr bool kRegular = false;
  void go() {}
  int left() const { return left_; }

  // What is left; then zeros up to whole pairs of tiles.
  void finish() {
    while (left_ > 0) pair();
    int row = keys_ / 2 * 2;
    if (row < keys_) {
      keys<1>();
      ++row;
      pairs_ += 2 * kRowStep;
    }
    const std::size_t row_bytes = sizeof(std::uint16_t) * kPanel;
    for (int i = row; i < round_up(keys_, kBlockRows); ++i) {
      __builtin_memset(p_ + left_at(depth_, i, 0), 0, row_bytes);
      __builtin_memset(ds_ + left_at(depth_, i, 0), 0, row_bytes);
    }
    for (int i = (keys_ + 1) / 2; i < round_up(keys_, kPairDepth) / 2; ++i, pairs_ += 2 * kRowStep) {
      __builtin_memset(pairs_, 0, row_bytes);
      __builtin_memset(pairs_ + 2 * pairs_half_, 0, row_bytes);
    }
  }

 private:
  // Vector j of scores or dP.
  FATTN_INLINE std::int64_t lane_of(int j) const {
    return j / kPanelVecs * kRowStep + lane_at(half_, j % kPanelVecs * kLanes);
  }
  // The next keys, one or two; beside one of them lies a row of zeros.
  template <int count>
  FATTN_INLINE void keys() {
    constexpr int kVecs = count * kPanelVecs;
    Vec weight[kVecs], ds[2][kPanelVecs];
    FATTN_UNROLL(32)
    for (int j = 0; j < kVecs; ++j) {
      // No weight is above 1; rounding of scores that are very large must not make it so.
      weight[j] = min(zero(), fma(load(s_ + lane_of(j)), scale_, minus_lse_[j % kPanelVecs]));
    }
    exp2_of_weights(weight);
    FATTN_UNROLL(32)
    for (int j = 0; j < 2 * kPanelVecs; ++j) {
      Vec& to = ds[j / kPanelVecs][j % kPanelVecs];
      to = j < kVecs ? weight[j % kVecs] * (load(dp_ + lane_of(j % kVecs)) - delta_[j % kPanelVecs]) : zero();
    }
    if (masked) {
      FATTN_UNROLL(32)
      for (int j = 0; j < kVecs; ++j) {
        // Chosen, not multiplied: scores and dP of an invisible pair may be anything.
        const MaskVec keep = within(splat(key_ + j / kPanelVecs), first_[j % kPanelVecs], last_[j % kPanelVecs]);
        weight[j] = select(keep, weight[j], zero());
        ds[j / kPanelVecs][j % kPanelVecs] = select(keep, ds[j / kPanelVecs][j % kPanelVecs], zero());
      }
    }
    const std::int64_t first = left_at(depth_, row_, 0), second = first + left_at(depth_, 1, 0);  // of one tile
    FATTN_UNROLL(32)
    for (int row = 0; row < count; ++row) {
      store_rounded(p_ + (row == 0 ? first : second),
                    *reinterpret_cast<const Vec(*)[kPanelVecs]>(weight + row * kPanelVecs));
    }
    store_rounded_pairs(ds_ + first, ds_ + second, ds[0], ds[1], pairs_, 2 * pairs_half_);
  }
  FATTN_INLINE void pair() {
    keys<2>();
    s_ += 2 * kRowStep, dp_ += 2 * kRowStep, pairs_ += 2 * kRowStep, row_ += 2;
    key_ += 2, --left_;
  }

  const float *s_, *dp_;
  std::uint16_t *p_, *ds_, *pairs_;
  std::int64_t depth_, half_, pairs_half_;
  int row_ = 0;
  int key_, keys_, left_, share_ = 0, turns_ = 1, credit_ = 0;
  Vec scale_, minus_lse_[kPanelVecs], delta_[kPanelVecs];
  IntVec first_[kPanelVecs], last_[kPanelVecs];
};

// One tile of keys beside the queries of a block and one head.
struct KeyTile {
  int key, keys;
  int begin, end;  // panels that see some of its keys
};

inline Panel panel_at(const TransposedScratch& scratch, int number, int slot) {
  return {number * kPanel, scratch.s + slot * scratch.slot_floats, scratch.dp + slot * scratch.slot_floats,
          scratch.pairs + slot * scratch.slot_floats};
}

// Whether every query of the panel takes part and sees every key of the tile.
inline bool sees_all(const TransposedScratch& scratch, const Panel& panel, const KeyTile& tile) {
  // Without branches, so that the compiler makes vectors of it.
  int all = 1;
  for (int i = panel.query; i < panel.query + kPanel; ++i) {
    all &= static_cast<int>(scratch.first[i] <= tile.key) & static_cast<int>(scratch.last[i] >= tile.key + tile.keys);
  }
  return all != 0;
}

template <class Between>
void scores_and_dp_of(const BackwardPlan& plan, const TransposedScratch& scratch, const KeyTile& tile,
                      const Panel& panel, Between& between) {
  const int d = padded(plan.geometry.d), dv = padded(plan.geometry.dv), keys = padded(tile.keys);
  panel_product<Into::overwrite>(scratch.k, d, keys, scratch.q + std::int64_t{panel.query} * d, half_step(d / 2), d,
                                 Sums{panel.s, kRowStep, scratch.half}, between);
  panel_product<Into::overwrite>(scratch.v, dv, keys, scratch.dout + std::int64_t{panel.query} * dv, half_step(dv / 2),
                                 dv, Sums{panel.dp, kRowStep, scratch.half}, between);
}
template <class Between>
void add_dq_of(const BackwardPlan& plan, const TransposedScratch& scratch, const KeyTile& tile, const Panel& panel,
               float* dq, Between& between) {
  const int d = padded(plan.geometry.d);
  panel_product<Into::add>(scratch.k_columns, plan.tile.k, d, panel.pairs, scratch.pairs_half, padded(tile.keys),
                           Sums{dq + std::int64_t{panel.query} * plan.d, kRowStep, half_step(plan.d)}, between);
}

// S^T, dP^T, P^T and dS^T of the panels of a tile, and their dQ.
inline void gradients_of_panels(const BackwardPlan& plan, const TransposedScratch& scratch, const KeyTile& tile,
                                float* dq) {
  const Geometry& g = plan.geometry;
  const int d = padded(g.d), dv = padded(g.dv), keys = padded(tile.keys);
  const int turns_of_s = turns(keys, d) + turns(keys, dv), turns_of_dq = turns(d, keys);
  Nothing nothing;
  const auto plain = [&](int number) {
    return number < tile.end && sees_all(scratch, panel_at(scratch, number, 0), tile);
  };
  for (int number = tile.begin; number < tile.end;) {
    Panel panel = panel_at(scratch, number, number & 1);
    scores_and_dp_of(plan, scratch, tile, panel, nothing);
    if (!plain(number)) {  // few
      Gradients<true> gradients(scratch, panel, g.scale, tile.key, tile.keys);
      gradients.finish();
      add_dq_of(plan, scratch, tile, panel, dq, nothing);
      ++number;
      continue;
    }
    // A run of plain panels.
    Gradients<false> gradients(scratch, panel, g.scale, tile.key, tile.keys);
    for (;;) {
      const Panel before = panel;
      const bool more = plain(++number);
      if (more) {
        panel = panel_at(scratch, number, number & 1);
        gradients.spread(gradients.left(), turns_of_s);
        scores_and_dp_of(plan, scratch, tile, panel, gradients);
      }
      gradients.finish();
      if (!more) {
        add_dq_of(plan, scratch, tile, before, dq, nothing);
        break;
      }
      gradients = Gradients<false>(scratch, panel, g.scale, tile.key, tile.keys);
      gradients.spread(gradients.left() / 3, turns_of_dq);
      add_dq_of(plan, scratch, tile, before, dq, gradients);
    }
  }
}

// dV += P^T dO, dK += dS^T Q.
inline void add_dk_dv(const BackwardPlan& plan, const TransposedScratch& scratch, const KeyTile& tile, float* dk,
                      float* dv) {
  const int rows = round_up(tile.keys, kBlockRows), query = tile.begin * kPanel;
  const int depth = (tile.end - tile.begin) * kPanel;
  const std::int64_t step = scratch.stride * kPanel, first = std::int64_t{query} * kRowStep;
  const std::int64_t half = half_step(scratch.stride / 2), left = left_at(scratch.stride, 0, query);
  Nothing nothing;
  for (int column = 0; column < padded(plan.geometry.dv); column += kPanel) {
    panel_product<Into::add>(scratch.p + left, scratch.stride, rows, scratch.dout_rows + column / kPanel * step + first,
                             half, depth, Sums{dv + column, plan.dv_columns, kHalfPanel}, nothing);
  }
  for (int column = 0; column < padded(plan.geometry.d); column += kPanel) {
    panel_product<Into::add>(scratch.ds + left, scratch.stride, rows, scratch.q_rows + column / kPanel * step + first,
                             half, depth, Sums{dk + column, plan.d, kHalfPanel}, nothing);
  }
}

// One panel of rows becomes the right side of products over its columns and, with the others, over the rows.
inline void pack_both(const RowsSource& source, int row, std::int64_t queries, std::uint16_t* copy,
                      std::uint16_t* by_columns, std::uint16_t* by_rows) {
  const int columns = padded(source.columns);
  RowsSource panel = source;
  panel.data = static_cast<const std::uint16_t*>(source.data) + row * source.row_stride;
  panel.rows = min_of(kPanel, source.rows - row);
  panel.keep = source.keep + row;
  const PairRows rows = copy_rows(panel, kPanel, columns, copy);
  pack_pairs_of_columns(rows, columns, by_columns + std::int64_t{row} * columns, kRowStep, half_step(columns / 2));
  pack_pairs_of_rows(rows, kPanel, columns, queries * kPanel, by_rows + std::int64_t{row} * kRowStep, kRowStep,
                     half_step(queries / 2));
}

// The queries of a block and one head: their operands, and what each lane needs to know.
inline void load_queries_of_block(const BackwardWork& work, const TransposedScratch& scratch, const Band& band,
                                  const Rows& queries, std::int64_t batch, std::int64_t head, int query, int rows) {
  const BackwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const float* const lse = work.buffers.lse + g.lse_offset(batch, queries.begin, head) + query;
  const float* const delta = work.sums.delta + head * plan.q_rows + work.q_row(batch, queries) + query;
  for (int i = 0; i < round_up(rows, kPanel); ++i) {
    const Interval visible = i < rows ? band.visible(query + i) : Interval{0, 0};
    // A row that saw nothing takes no part; its dout may be anything.
    const bool seen = visible.begin < visible.end && lse[i] != -kInfinity;
    scratch.first[i] = seen ? visible.begin : 0;
    scratch.last[i] = seen ? visible.end : 0;
    scratch.lse[i] = seen ? lse[i] : 0;
    scratch.delta[i] = seen ? delta[i] : 0;
    scratch.seen_q[i] = seen;
  }
  const std::int64_t row = queries.begin + query;
  const RowsSource q = plan.q.rows(work.buffers.q, batch, row, head, rows, g.d, scratch.seen_q);
  const RowsSource dout = plan.dout.rows(work.buffers.dout, batch, row, head, rows, g.dv, scratch.seen_q);
  for (int i = 0; i < rows; i += kPanel) {
    fetch_rows(q, i + kPanel, i + 2 * kPanel);
    fetch_rows(dout, i + kPanel, i + 2 * kPanel);
    pack_both(q, i, scratch.stride, scratch.copy, scratch.q, scratch.q_rows);
    pack_both(dout, i, scratch.stride, scratch.copy, scratch.dout, scratch.dout_rows);
  }
}

// One block: queries of q_chunk x keys of k_chunk, for all query heads that share the key head.
inline void transposed_block(const BackwardWork& work, const Block& at, int lane) {
  const BackwardPlan& plan = work.plan;
  const std::int64_t batch = at.batch, head_kv = at.head_kv;
  const Geometry& g = plan.geometry;
  const int d = padded(g.d), dv = padded(g.dv), size = plan.tile.k;
  const Rows queries = g.queries(work.buffers, batch), keys = g.keys(work.buffers, batch);
  const std::int64_t q_first = at.q_chunk * plan.chunk, k_first = at.k_chunk * plan.chunk;
  if (q_first >= queries.length || k_first >= keys.length) return;
  const int query = static_cast<int>(q_first), rows = min_of(queries.length - query, plan.chunk);
  const int k_begin = static_cast<int>(k_first), k_end = min_of(keys.length, k_begin + plan.chunk);
  const TransposedScratch scratch = work.transposed_scratch(lane);
  const Band band = g.band(work.buffers, batch, queries, keys);
  if (!at.same_queries) *scratch.loaded = -1;

  for (std::int64_t head = head_kv * g.group; head < (head_kv + 1) * g.group; ++head) {
    const std::int64_t name = head * plan.q_rows + query;
    for (int key = k_begin; key < k_end; key += size) {
      const int count = min_of(size, k_end - key), panel = query / kPanel;
      const TileRange range = band.tiles_for(key, key + count, kPanel);
      const KeyTile tile{key, count, max_of(range.begin - panel, 0), min_of(range.end - panel, ceil_div(rows, kPanel))};
      if (tile.begin >= tile.end) continue;
      if (*scratch.loaded != name) load_queries_of_block(work, scratch, band, queries, batch, head, query, rows);
      *scratch.loaded = name;

      // One panel inside the mask sees every key.
      const bool some_interior =
          max_of(range.interior_begin - panel, tile.begin) < min_of(range.interior_end - panel, tile.end);
      if (!some_interior) mark_seen_keys(band, query, query + rows, key, count, scratch.seen_k);
      const bool* const seen = some_interior ? nullptr : scratch.seen_k;
      const int padded_keys = padded(count);
      const RowsSource k = plan.k.rows(work.buffers.k, batch, keys.begin + key, head_kv, count, g.d, seen);
      const RowsSource v = plan.v.rows(work.buffers.v, batch, keys.begin + key, head_kv, count, g.dv, seen);
      fetch_rows(v, 0, count);
      const PairRows k_rows = padded_rows(k, padded_keys, d, scratch.copy);
      pack_left(k_rows, padded_keys, d, scratch.k, d);
      pack_left_of_columns(k_rows, padded_keys, d, scratch.k_columns, size);
      pack_left(padded_rows(v, padded_keys, dv, scratch.copy), padded_keys, dv, scratch.v, dv);

      const std::int64_t q_row = head * plan.q_rows + work.q_row(batch, queries) + query;
      const std::int64_t k_row = head_kv * plan.k_rows + work.k_row(batch, keys) + key;
      gradients_of_panels(plan, scratch, tile, work.sums.dq + q_row * plan.d);
      add_dk_dv(plan, scratch, tile, work.sums.dk + k_row * plan.d, work.sums.dv + k_row * plan.dv_columns);
    }
  }
}

// Rows of dQ from panels that are held transposed.
inline void write_transposed_dq(const BackwardWork& work, std::int64_t batch, std::int64_t head, std::int64_t q_tile) {
  const BackwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const Rows queries = g.queries(work.buffers, batch);
  const Interval rows = rows_to_write(queries, q_tile, plan.q_tiles, plan.tile.q);
  const float* const sums = work.sums.dq + (head * plan.q_rows + work.q_row(batch, queries)) * plan.d;
  for (int row = rows.begin; row < min_of(rows.end, queries.length); row += kPanel) {
    for (int column = 0; column < g.d; column += kLanes) {
      float lanes[kPanel][kLanes];
      for (int j = 0; j < kPanel; j += kLanes) {
        Vec block[kLanes];
        for (int i = 0; i < kLanes; ++i)
          block[i] = load(sums + row * plan.d + (column + i) * kRowStep + lane_at(half_step(plan.d), j));
        transpose(block);
        for (int i = 0; i < kLanes; ++i) store(lanes[query_of_lane(j + i)], block[i]);
      }
      for (int i = 0; i < min_of(kPanel, min_of(rows.end, queries.length) - row); ++i) {
        char* const to = static_cast<char*>(plan.dq.at(work.buffers.dq, batch, queries.begin + row + i, head));
        store_row(plan.dq.dtype, lanes[i], g.scale, min_of(kLanes, g.d - column), to + column * plan.dq.element_bytes);
      }
    }
  }
  const int past = max_of(rows.begin, queries.length);
  write_gradient(plan.dq, work.buffers.dq, batch, head, queries, past, rows.end, sums, plan.d, g.scale, g.d);
}

inline void pairs_block(const BackwardWork& work, const Block& block, int lane) {
  if (work.plan.transposed) return transposed_block(work, block, lane);
  block_item(work, block, lane);
}
inline void pairs_write_dq(const BackwardWork& work, std::int64_t batch, std::int64_t head, std::int64_t q_tile) {
  if (work.plan.transposed) return write_transposed_dq(work, batch, head, q_tile);
  write_dq(work, batch, head, q_tile);
}

inline constexpr BackwardParts kPairsBackwardParts{delta_item, pairs_block, pairs_write_dq, write_dk_dv};

}  // namespace fattn::host::FATTN_TARGET
