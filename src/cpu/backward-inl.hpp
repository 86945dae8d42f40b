// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/marks-inl.hpp"
#include "cpu/score-inl.hpp"

// The backward pass for one block of the score matrix, and what comes before and after. Tiles of keys are the outer
// loop: K and V are packed once for all queries of the block. A vector is one query and kLanes keys.
namespace fattn::host::FATTN_TARGET {

static_assert(kTileSide % kPanel == 0, "the keys of a tile fill whole panels of Q K^T");
static_assert(kTileSide % kBlockRows == 0 && kHalfTileSide % kBlockRows == 0,
              "micro-kernels write whole blocks of rows into a tile, and no tile into its neighbour");
static_assert(kBackwardChunk % kTileSide == 0 && kBackwardChunk % kHalfTileSide == 0, "a block is made of whole tiles");

static_assert(kSpill >= kPanel - 1, "sums of dbias by keys are written in whole panels past the end of a sequence");

// One tile of scores of one query head.
struct GradientTile {
  Band band;
  std::int64_t batch;
  std::int64_t head;
  std::int64_t head_kv;
  float slope;  // ALiBi
  int query;    // first of the tile, within the sequence
  int rows;
  int key;  // first of the tile
  int keys;
  bool masked;         // some pair may be invisible
  const int* marks;    // [tile.q][tile.k]; null: the Band says all
  const float* lse;    // [rows]
  const float* delta;  // [rows]
};

// delta = rowsum(dO o O) - dlse for one tile of queries, and their part of dsink.
inline void delta_item(const BackwardWork& work, std::int64_t batch, std::int64_t head, std::int64_t q_tile, int lane) {
  const BackwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const Rows queries = g.queries(work.buffers, batch);
  const int query = static_cast<int>(q_tile) * plan.tile.q;
  const int rows = min_of(queries.length - query, plan.tile.q);
  const BackwardScratch scratch = work.scratch(lane);
  const float* const lse = work.buffers.lse + g.lse_offset(batch, queries.begin + query, head);
  float* const delta = work.sums.delta + head * plan.q_rows + work.q_row(batch, queries) + query;
  double dsink = 0;
  for (int panel = 0; panel < rows; panel += kPanel) {
    const int count = min_of(kPanel, rows - panel);
    // A row that saw nothing takes no part; its dout may be anything.
    for (int i = 0; i < count; ++i) scratch.seen_q[i] = lse[panel + i] != -kInfinity;
    const std::int64_t row = queries.begin + query + panel;
    float sums[kPanel];
    dot_panel(plan, plan.dout.rows(work.buffers.dout, batch, row, head, count, g.dv, scratch.seen_q),
              plan.o.rows(work.buffers.o, batch, row, head, count, g.dv, scratch.seen_q), scratch, sums);
    for (int i = 0; i < count; ++i) {
      delta[panel + i] = sums[i];
      if (!scratch.seen_q[i]) continue;
      if (g.problem.dlse) delta[panel + i] -= work.buffers.dlse[g.lse_offset(batch, row, head) + i];
      if (!g.problem.dsink) continue;
      const double difference = static_cast<double>(work.buffers.sinks[head]) - static_cast<double>(lse[panel + i]);
      dsink -= __builtin_exp(difference) * static_cast<double>(delta[panel + i]);
    }
  }
  if (g.problem.dsink) {
    work.sums.dsink[(head * g.problem.batch + batch) * plan.q_tiles + q_tile] = static_cast<float>(dsink);
  }
}

// Where the dS of one query go besides the products.
struct BiasSums {
  float* matrix = nullptr;   // dbias of the tile's first pair
  std::int64_t stride = 0;   // to the next query
  float* queries = nullptr;  // [rows]
  float* keys = nullptr;     // [keys]
};

inline BiasSums bias_sums(const BackwardWork& work, const GradientTile& tile, const Rows& queries, const Rows& keys) {
  const BackwardPlan& plan = work.plan;
  BiasSums sums;
  switch (plan.bias_gradient) {
    case BiasGradient::none: break;
    case BiasGradient::matrix:
      sums.matrix = work.buffers.dbias + plan.geometry.bias_offset(tile.batch, tile.head, tile.query, tile.key);
      sums.stride = plan.geometry.bias_row_stride();
      break;
    case BiasGradient::queries:
      sums.queries = work.sums.dbias + tile.head * plan.q_rows + work.q_row(tile.batch, queries) + tile.query;
      break;
    case BiasGradient::keys:
      sums.keys = work.sums.dbias + tile.head * plan.k_rows + work.k_row(tile.batch, keys) + tile.key;
      break;
  }
  return sums;
}

// Scores become weights P = exp(s - lse) and dP becomes dS, both rounded to the dtype of the inputs.
template <DType dtype, bool general>
void weights_and_gradients(const Geometry& g, const Tile& size, const GradientTile& tile,
                           const BackwardScratch& scratch, const BiasSums& sums) {
  const Vec scale = splat(g.scale), log2e = splat(kLog2e), slope = splat(tile.slope);
  const Softcap softcap(g.softcap);
  const Vec dropout = splat(g.dropout.factor);
  const int padded = round_up(tile.keys, kPanel);
  for (int i = 0; i < tile.rows; ++i) {
    float* const p = scratch.p + i * size.k;
    float* const ds = scratch.ds + i * size.k;
    const float row_lse = tile.lse[i];
    if (row_lse == -kInfinity) {
      __builtin_memset(p, 0, static_cast<std::size_t>(padded) * sizeof(float));
      __builtin_memset(ds, 0, static_cast<std::size_t>(padded) * sizeof(float));
      continue;
    }
    const Vec minus_lse = splat(-row_lse), delta = splat(tile.delta[i]);
    const IntVec first = splat(scratch.first[i]), last = splat(scratch.last[i]);
    const IntVec diagonal = splat(tile.band.diagonal(tile.query + i));
    Vec total = zero();
    for (int j = 0; j < padded; j += kLanes) {
      MaskVec keep = within(count_from(j), first, last), kept = keep;
      Vec dp = load(ds + j);
      if (general && tile.marks != nullptr) {
        const IntVec mark = load(tile.marks + i * size.k + j);
        keep = keep & (splat(kUnseen) < mark);
        kept = keep & (splat(kDropped) < mark);
        dp = select(kept, dp * dropout, zero());
      }
      Vec difference, slope_of_cap = splat(1.0f);
      if (general) {
        Vec score = softcap.apply(load(p + j) * scale);
        slope_of_cap = softcap.derivative(score);
        if (scratch.bias != nullptr) {
          score = score + load(scratch.bias + (j / kPanel * size.q + i) * kPanel + j % kPanel);
        }
        difference = score - alibi(slope, diagonal, count_from(tile.key + j)) + minus_lse;
      } else {
        difference = fma(load(p + j), scale, minus_lse);
      }
      // No weight is above 1; rounding of scores that are very large must not make it so.
      const Vec weight = select(keep, exp2(min(zero(), difference) * log2e), zero());
      // Chosen, not multiplied: dP of an invisible pair may be anything.
      const Vec gradient = select(keep, weight * (dp - delta), zero());
      store(p + j, for_products<dtype>(general ? select(kept, weight, zero()) : weight));
      store(ds + j, for_products<dtype>(general ? gradient * slope_of_cap : gradient));
      if (!general) continue;
      if (sums.keys != nullptr) store(sums.keys + j, load(sums.keys + j) + gradient);
      if (sums.queries != nullptr) total = total + gradient;
      if (sums.matrix != nullptr) {
        float* const to = sums.matrix + i * sums.stride + j;
        if (j + kLanes <= tile.keys) {
          store(to, load(to) + gradient);
        } else {
          float lanes[kLanes];
          store(lanes, gradient);
          for (int lane = 0; j + lane < tile.keys; ++lane) to[lane] += lanes[lane];
        }
      }
    }
    if (sums.queries != nullptr) sums.queries[i] += sum(total);
  }
}

template <DType dtype>
void weights_and_gradients(const Geometry& g, const Tile& size, const GradientTile& tile,
                           const BackwardScratch& scratch, const BiasSums& sums) {
  return g.plain && tile.marks == nullptr ? weights_and_gradients<dtype, false>(g, size, tile, scratch, sums)
                                          : weights_and_gradients<dtype, true>(g, size, tile, scratch, sums);
}

// Intervals of visible keys, counted within the tile, and which queries see any key of it.
inline Share visible_keys(const GradientTile& tile, const MarkedTile& marked, const BackwardScratch& scratch) {
  bool all = true, any = false;
  for (int i = 0; i < tile.rows; ++i) {
    const Interval visible = tile.masked ? tile.band.visible(tile.query + i) : Interval{tile.key, tile.key + tile.keys};
    scratch.first[i] = max_of(0, visible.begin - tile.key);
    scratch.last[i] = min_of(tile.keys, visible.end - tile.key);
    scratch.seen_q[i] = scratch.first[i] < scratch.last[i] && tile.lse[i] != -kInfinity;
    if (tile.marks != nullptr && !sees_any(marked, i, scratch.first[i], scratch.last[i])) scratch.seen_q[i] = false;
    all = all && scratch.seen_q[i];
    any = any || scratch.seen_q[i];
  }
  return any ? (all ? Share::all : Share::some) : Share::none;
}

// S = Q K^T, dP = dO V^T, P and dS, then dV += P^T dO, dK += dS^T Q, dQ += dS K.
inline void gradient_step(const BackwardWork& work, const GradientTile& tile, const MarkedTile& marked,
                          const Rows& queries, const Rows& keys, const BackwardScratch& scratch) {
  const BackwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const Tile size = plan.tile;
  const Share share = visible_keys(tile, marked, scratch);
  if (share == Share::none) return;
  const bool* const seen = share == Share::all ? nullptr : scratch.seen_q;
  const std::int64_t row = queries.begin + tile.query;
  load_queries(plan, plan.q.rows(work.buffers.q, tile.batch, row, tile.head, tile.rows, g.d, seen),
               plan.dout.rows(work.buffers.dout, tile.batch, row, tile.head, tile.rows, g.dv, seen), scratch);
  if (scratch.bias != nullptr) {
    pack_panels(g.bias(work.buffers, tile.batch, tile.head, tile.query, tile.key, tile.rows, tile.keys), size.q,
                scratch.bias);
  }

  scores_and_dp(plan, tile.rows, tile.keys, scratch);
  const BiasSums sums = bias_sums(work, tile, queries, keys);
  switch (g.problem.dtype) {
    case DType::bf16: weights_and_gradients<DType::bf16>(g, size, tile, scratch, sums); break;
    case DType::fp16: weights_and_gradients<DType::fp16>(g, size, tile, scratch, sums); break;
    default: weights_and_gradients<DType::fp32>(g, size, tile, scratch, sums); break;
  }

  const std::int64_t k_row = tile.head_kv * plan.k_rows + work.k_row(tile.batch, keys) + tile.key;
  const std::int64_t q_row = tile.head * plan.q_rows + work.q_row(tile.batch, queries) + tile.query;
  add_gradients(plan, tile.rows, tile.keys, scratch, work.sums.dq + q_row * plan.d, work.sums.dk + k_row * plan.d,
                work.sums.dv + k_row * plan.dv_columns);
}

// One block: queries of q_chunk x keys of k_chunk, for all query heads that share the key head.
inline void block_item(const BackwardWork& work, const Block& at, int lane) {
  const BackwardPlan& plan = work.plan;
  const std::int64_t batch = at.batch, head_kv = at.head_kv;
  const Geometry& g = plan.geometry;
  const Tile size = plan.tile;
  const Rows queries = g.queries(work.buffers, batch), keys = g.keys(work.buffers, batch);
  const std::int64_t q_first = at.q_chunk * plan.chunk, k_first = at.k_chunk * plan.chunk;
  if (q_first >= queries.length || k_first >= keys.length) return;
  const int q_begin = static_cast<int>(q_first), q_end = min_of(queries.length, q_begin + plan.chunk);
  const int k_begin = static_cast<int>(k_first), k_end = min_of(keys.length, k_begin + plan.chunk);

  const BackwardScratch scratch = work.scratch(lane);
  const Band band = g.band(work.buffers, batch, queries, keys);
  for (int key = k_begin; key < k_end; key += size.k) {
    const int count = min_of(size.k, k_end - key);
    const TileRange range = band.tiles_for(key, key + count, size.q);
    const int begin = max_of(range.begin, q_begin / size.q), end = min_of(range.end, ceil_div(q_end, size.q));
    if (begin >= end) continue;

    // One interior tile of queries sees every key.
    const bool some_interior = max_of(begin, range.interior_begin) < min_of(end, range.interior_end);
    if (!some_interior && !g.hides) mark_seen_keys(band, q_begin, q_end, key, count, scratch.seen_k);
    const bool* const seen = some_interior && !g.hides ? nullptr : scratch.seen_k;
    MarkedTile marked{0, 0, key, count, scratch.marks, size.k, size.q, false};
    if (g.hides) {
      const KeysOfBlock block{batch, head_kv, queries, keys, band, begin * size.q, min_of(end * size.q, q_end)};
      if (!look_at_block(g, work.buffers, block, marked, size.q, scratch.seen_k)) continue;
    }
    const RowsSource k = plan.k.rows(work.buffers.k, batch, keys.begin + key, head_kv, count, g.d, seen);
    const RowsSource v = plan.v.rows(work.buffers.v, batch, keys.begin + key, head_kv, count, g.dv, seen);
    load_keys(plan, k, v, scratch);

    for (std::int64_t head = head_kv * g.group; head < (head_kv + 1) * g.group; ++head) {
      const float* const lse = work.buffers.lse + g.lse_offset(batch, queries.begin, head);
      const float* const delta = work.sums.delta + head * plan.q_rows + work.q_row(batch, queries);
      const Marker marker = g.marker(work.buffers, batch, head, queries, keys);
      for (int t = begin; t < end; ++t) {
        const int query = t * size.q;
        marked.query = query;
        marked.rows = min_of(size.q, q_end - query);
        const Share share = g.hides ? marker.mask.share(query, query + marked.rows, key, key + count) : Share::all;
        if (share == Share::none) continue;
        const bool marks = share == Share::some || g.drops;
        if (marks) mark_tile(marker, share, marked);
        const GradientTile tile{.band = band,
                                .batch = batch,
                                .head = head,
                                .head_kv = head_kv,
                                .slope = g.slope(work.buffers, batch, head),
                                .query = query,
                                .rows = marked.rows,
                                .key = key,
                                .keys = count,
                                .masked = t < range.interior_begin || t >= range.interior_end,
                                .marks = marks ? scratch.marks : nullptr,
                                .lse = lse + query,
                                .delta = delta + query};
        gradient_step(work, tile, marked, queries, keys, scratch);
      }
    }
  }
}

// Rows of one tensor: sums * factor for those that take part, 0 for those past the length.
inline void write_gradient(const Tensor& tensor, void* out, std::int64_t batch, std::int64_t head, const Rows& rows,
                           std::int64_t begin, std::int64_t end, const float* sums, std::int64_t stride, float factor,
                           int columns) {
  for (std::int64_t row = begin; row < end; ++row) {
    void* const to = tensor.at(out, batch, rows.begin + row, head);
    if (row < rows.length) {
      store_row(tensor.dtype, sums + row * stride, factor, columns, to);
    } else {
      __builtin_memset(to, 0, static_cast<std::size_t>(columns) * static_cast<std::size_t>(tensor.element_bytes));
    }
  }
}

// The rows that a tile of `size` rows writes: its own, and in the last tile all that follow.
inline Interval rows_to_write(const Rows& rows, std::int64_t tile, std::int64_t tiles, int size) {
  const std::int64_t allocated = rows.end - rows.begin, begin = tile * size;
  const std::int64_t end = tile + 1 == tiles || begin + size > allocated ? allocated : begin + size;
  return {static_cast<int>(begin), static_cast<int>(end)};
}

inline void write_dq(const BackwardWork& work, std::int64_t batch, std::int64_t head, std::int64_t q_tile) {
  const BackwardPlan& plan = work.plan;
  const Rows queries = plan.geometry.queries(work.buffers, batch);
  const Interval rows = rows_to_write(queries, q_tile, plan.q_tiles, plan.tile.q);
  const float* const sums = work.sums.dq + (head * plan.q_rows + work.q_row(batch, queries)) * plan.d;
  write_gradient(plan.dq, work.buffers.dq, batch, head, queries, rows.begin, rows.end, sums, plan.d,
                 plan.geometry.scale, plan.geometry.d);
}

inline void write_dk_dv(const BackwardWork& work, std::int64_t batch, std::int64_t head_kv, std::int64_t k_tile) {
  const BackwardPlan& plan = work.plan;
  const Rows keys = plan.geometry.keys(work.buffers, batch);
  const Interval rows = rows_to_write(keys, k_tile, plan.k_tiles, plan.tile.k);
  const std::int64_t first = head_kv * plan.k_rows + work.k_row(batch, keys);
  write_gradient(plan.dk, work.buffers.dk, batch, head_kv, keys, rows.begin, rows.end, work.sums.dk + first * plan.d,
                 plan.d, plan.geometry.scale, plan.geometry.d);
  write_gradient(plan.dv, work.buffers.dv, batch, head_kv, keys, rows.begin, rows.end,
                 work.sums.dv + first * plan.dv_columns, plan.dv_columns, plan.geometry.dropout.factor,
                 plan.geometry.dv);
}

inline constexpr BackwardParts kBackwardParts{delta_item, block_item, write_dq, write_dk_dv};

}  // namespace fattn::host::FATTN_TARGET
