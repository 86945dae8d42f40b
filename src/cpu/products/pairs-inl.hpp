// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/score-inl.hpp"

// The matrix products of both passes for targets that multiply bf16 in pairs (gemm/pairs-inl.hpp). The functions are
// those of products/vector-inl.hpp. Weights stay fp32 until they are paired, O is held transposed: [panel][dv][kPanel].
namespace fattn::host::FATTN_TARGET {

static_assert(kSpill >= kBlockRows - 1, "micro-kernels write whole blocks of rows past the end of a sequence");

inline constexpr bool kPairs = true;

inline std::uint16_t* pairs(float* memory) { return reinterpret_cast<std::uint16_t*>(memory); }
inline int padded(int n) { return round_up(n, kPairDepth); }

// Backward: rounded when they are paired.
template <DType>
inline Vec for_products(Vec weight) {
  return weight;
}

inline void begin_item(const ForwardPlan& plan, const RowsSource& q, const ForwardScratch& scratch) {
  const int d = padded(plan.geometry.d);
  for (int panel = 0; panel * kPanel < q.rows; ++panel) scratch.begun[panel] = false;
  for (int row = 0; row < q.rows; row += kPanel) {
    RowsSource panel = q;
    panel.data = static_cast<const std::uint16_t*>(q.data) + row * q.row_stride;
    panel.rows = min_of(kPanel, q.rows - row);
    fetch_rows(q, row + kPanel, row + 2 * kPanel);
    const PairRows rows = padded_rows(panel, kPanel, d, pairs(scratch.copy));
    pack_pairs_of_columns(rows, d, pairs(scratch.q) + std::int64_t{row} * d, kRowStep, half_step(d / 2));
  }
}

// The tile's place in its group.
inline void load_keys(const ForwardPlan& plan, const RowsSource& k, const RowsSource& v, int tile,
                      const ForwardScratch& scratch) {
  const int d = padded(plan.geometry.d), dv = padded(plan.geometry.dv), keys = padded(k.rows);
  const std::int64_t first = std::int64_t{tile} * plan.tile.k;
  // Rows far apart crowd into few sets of the first cache, so they are copied where they need not be cut.
  pack_left(padded_rows(k, keys, d, pairs(scratch.copy)), keys, d, pairs(scratch.k) + first * d, d);
  pack_left_of_columns(padded_rows(v, keys, dv, pairs(scratch.copy)), keys, dv, pairs(scratch.v) + first * dv,
                       plan.tile.k);
}

template <Into into>
void plain_product(const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                   std::int64_t b_stride, int depth, float* c, std::int64_t c_stride) {
  Nothing nothing;
  product<into>(a, a_stride, rows, b, b_stride, depth, c, c_stride, nothing);
}

// One panel of queries and one tile of a group of key tiles.
struct Unit {
  int panel;
  int tile;
  int keys;
  float* scores;  // a panel of plan.tile.k keys; then weights, pairs, in the first half
  float* factor;  // [kPanel]: what becomes of the output so far
};

// How often the products below give a turn.
inline int turns_of_scores(const ForwardPlan& plan, const Unit& unit) {
  return turns(padded(unit.keys), padded(plan.geometry.d));
}
inline int turns_of_output(const ForwardPlan& plan, const Unit& unit) {
  return turns(padded(plan.geometry.dv), padded(unit.keys));
}

template <class Between>
void scores_of_unit(const ForwardPlan& plan, const Unit& unit, const ForwardScratch& scratch, Between& between) {
  const int d = padded(plan.geometry.d);
  panel_product<Into::overwrite>(pairs(scratch.k) + std::int64_t{unit.tile} * plan.tile.k * d, d, padded(unit.keys),
                                 pairs(scratch.q) + std::int64_t{unit.panel} * d * kPanel, half_step(d / 2), d,
                                 Sums{unit.scores, kRowStep, half_step(plan.tile.k)}, between);
}

// O^T = O^T * factor + V^T P^T
template <class Between>
void output_of_unit(const ForwardPlan& plan, const Unit& unit, const ForwardScratch& scratch, Between& between) {
  const int dv = padded(plan.geometry.dv), depth = padded(unit.keys);
  const std::uint16_t* const v = pairs(scratch.v) + std::int64_t{unit.tile} * plan.tile.k * dv;
  float* const out = scratch.o + std::int64_t{unit.panel} * dv * kPanel;
  const std::int64_t half = half_step(dv), right = half_step(plan.tile.k);
  const Sums sums{out, kRowStep, half};
  if (!scratch.begun[unit.panel]) {
    scratch.begun[unit.panel] = true;
    panel_product<Into::overwrite>(v, plan.tile.k, dv, pairs(unit.scores), right, depth, sums, between);
    return;
  }
  bool same = true;
  for (int j = 0; j < kPanel; j += kLanes) same = same && all(load(unit.factor + j) == splat(1.0f));
  if (!same) {
    for (int j = 0; j < kPanel; j += kLanes) {
      const Vec factor = load(unit.factor + j);
      float* const column = out + lane_at(half, j);
      for (int i = 0; i < dv; ++i) store(column + i * kRowStep, load(column + i * kRowStep) * factor);
    }
  }
  panel_product<Into::add>(v, plan.tile.k, dv, pairs(unit.scores), right, depth, sums, between);
}

inline float* output_row(const ForwardPlan& plan, int i, const ForwardScratch& scratch) {
  const int dv = padded(plan.geometry.dv);
  if (i % kPanel == 0) {
    const float* const from = scratch.o + std::int64_t{i} * dv;
    for (int column = 0; column < dv; column += kLanes) {
      for (int j = 0; j < kPanel; j += kLanes) {
        Vec block[kLanes];
        for (int row = 0; row < kLanes; ++row)
          block[row] = load(from + (column + row) * kRowStep + lane_at(half_step(dv), j));
        transpose(block);
        for (int row = 0; row < kLanes; ++row) store(scratch.rows + std::int64_t{j + row} * dv + column, block[row]);
      }
    }
  }
  return scratch.rows + std::int64_t{i % kPanel} * dv;
}

// Rows [row, row + kPanel) of an item whose first is `first`: divided while they are held transposed, and stored as
// they become rows. False where something is left to write_row(): a sink, parts of the keys, a row without a key.
template <DType dtype>
void store_panel(const ForwardWork& work, const float* from, const float* factors, std::int64_t batch,
                 std::int64_t head, std::int64_t at, int rows) {
  const ForwardPlan& plan = work.plan;
  for (int j = 0; j < rows; j += kLanes) {
    const Vec factor = load(factors + j);
    const std::int64_t at_lane = lane_at(half_step(padded(plan.geometry.dv)), j);
    for (int column = 0; column < plan.geometry.dv; column += kLanes) {
      Vec block[kLanes];
      FATTN_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) block[i] = load(from + (column + i) * kRowStep + at_lane) * factor;
      transpose(block);
      for (int i = 0; i < min_of(kLanes, rows - j); ++i) {
        auto* const to =
            static_cast<typename Format<dtype>::Element*>(plan.o.at(work.buffers.o, batch, at + j + i, head));
        Format<dtype>::store(to + column, block[i]);
      }
    }
  }
}
// ln(x) of kPanel sums within 1e-11, in a loop that compilers make vectors of; exact for 1.
inline void logarithms(const float* x, double* out) {
  constexpr double kLn2 = 0.69314718055994530942, kRoot2 = 1.41421356237309504880;
  for (int i = 0; i < kPanel; ++i) {
    const double wide = static_cast<double>(x[i]);
    const auto bits = __builtin_bit_cast(std::int64_t, wide);
    double exponent = static_cast<double>((bits >> 52) - 1023);
    double m = __builtin_bit_cast(double, (bits & 0xfffffffffffff) | 0x3ff0000000000000);
    exponent = m > kRoot2 ? exponent + 1 : exponent;
    m = m > kRoot2 ? m / 2 : m;
    const double t = (m - 1) / (m + 1), z = t * t;
    double p = 2.0 / 13;
    p = p * z + 2.0 / 11;
    p = p * z + 2.0 / 9;
    p = p * z + 2.0 / 7;
    p = p * z + 2.0 / 5;
    p = p * z + 2.0 / 3;
    p = p * z + 2.0;
    const double log = exponent * kLn2 + t * p;
    out[i] = wide > 0 && wide <= 3.5e38 ? log : wide;  // NaN stays
  }
}
inline bool writes_panel(const ForwardWork& work, std::int64_t batch, std::int64_t head, std::int64_t first, int rows,
                         int row, const ForwardScratch& scratch) {
  const ForwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  if (plan.splits > 1 || g.problem.sinks || g.dv % kLanes != 0) return false;
  const int count = min_of(kPanel, rows - row);
  bool seen = true;
  for (int i = row; i < row + count; ++i) seen = seen && scratch.max[i] != -kInfinity;
  if (!seen) return false;
  // The next panel's rows are far apart, and will be written.
  for (int i = row + kPanel; i < min_of(rows, row + 2 * kPanel); ++i) {
    const char* const to = static_cast<const char*>(plan.o.at(work.buffers.o, batch, first + i, head));
    for (int byte = 0; byte < g.dv * plan.o.element_bytes; byte += 64) __builtin_prefetch(to + byte, 1, 3);
  }
  float factors[kPanel];
  for (int i = 0; i < kPanel; i += kLanes) store(factors + i, splat(g.dropout.factor) / load(scratch.sum + row + i));
  const float* const from = scratch.o + std::int64_t{row} * padded(g.dv);
  const std::int64_t at = first + row;
  if (g.problem.return_lse) {
    double logs[kPanel];
    logarithms(scratch.sum + row, logs);
    for (int i = 0; i < count; ++i) {
      const double top = static_cast<double>(scratch.max[row + i]) * (g.plain ? static_cast<double>(g.scale) : 1.0);
      work.buffers.lse[g.lse_offset(batch, at + i, head)] = static_cast<float>(top + logs[i]);
    }
  }
  switch (plan.o.dtype) {
    case DType::bf16: store_panel<DType::bf16>(work, from, factors, batch, head, at, count); break;
    case DType::fp16: store_panel<DType::fp16>(work, from, factors, batch, head, at, count); break;
    default: store_panel<DType::fp32>(work, from, factors, batch, head, at, count);
  }
  return true;
}

// sum[i] = a row i . b row i for one panel of rows: the diagonal of the product that dP comes from, so that dP - delta
// is exactly 0 where o is a row of v. An o of another dtype is summed in fp32.
inline void dot_panel(const BackwardPlan& plan, const RowsSource& a, const RowsSource& b,
                      const BackwardScratch& scratch, float* sum) {
  const int columns = padded(a.columns);
  if (b.dtype != DType::bf16) {
    float* const packed_b = scratch.wide + std::int64_t{columns} * kPanel;
    pack_transposed(a, scratch.wide);
    pack_transposed(b, packed_b);
    for (int j = 0; j < kPanel; j += kLanes) {
      Vec total = zero();
      for (int i = 0; i < a.columns; ++i) {
        total = fma(load(scratch.wide + i * kPanel + j), load(packed_b + i * kPanel + j), total);
      }
      store(sum + j, total);
    }
    return;
  }
  pack_pairs_of_columns(copy_rows(b, kPanel, columns, pairs(scratch.copy)), columns, pairs(scratch.v_transposed));
  copy_rows(a, kPanel, columns, pairs(scratch.copy));
  plain_product<Into::overwrite>(pairs(scratch.copy), columns, kPanel, pairs(scratch.v_transposed), kPairRow, columns,
                                 scratch.p, plan.tile.k);
  for (int i = 0; i < kPanel; ++i) sum[i] = scratch.p[i * plan.tile.k + i];
}

inline void load_keys(const BackwardPlan& plan, const RowsSource& k, const RowsSource& v,
                      const BackwardScratch& scratch) {
  const int d = padded(plan.geometry.d), dv = padded(plan.geometry.dv), keys = padded(k.rows);
  const PairRows k_rows = padded_rows(k, keys, d, pairs(scratch.copy));
  pack_pairs_of_rows(k_rows, keys, d, std::int64_t{plan.tile.k} * kPanel, pairs(scratch.k));
  for (int key = 0; key < keys; key += kPanel) {
    pack_pairs_of_columns({k_rows.data + key * k_rows.stride, k_rows.stride}, d,
                          pairs(scratch.k_transposed) + std::int64_t{key} * d);
  }
  const PairRows v_rows = padded_rows(v, keys, dv, pairs(scratch.copy));
  for (int key = 0; key < keys; key += kPanel) {
    pack_pairs_of_columns({v_rows.data + key * v_rows.stride, v_rows.stride}, dv,
                          pairs(scratch.v_transposed) + std::int64_t{key} * dv);
  }
}
inline void load_queries(const BackwardPlan& plan, const RowsSource& q, const RowsSource& dout,
                         const BackwardScratch& scratch) {
  const int d = padded(plan.geometry.d), dv = padded(plan.geometry.dv), rows = padded(q.rows);
  const std::int64_t step = std::int64_t{plan.tile.q} * kPanel;
  pack_pairs_of_rows(copy_rows(q, rows, d, pairs(scratch.q_rows)), rows, d, step, pairs(scratch.q));
  pack_pairs_of_rows(copy_rows(dout, rows, dv, pairs(scratch.dout_rows)), rows, dv, step, pairs(scratch.dout));
}

inline void scores_and_dp(const BackwardPlan& plan, int rows, int keys, const BackwardScratch& scratch) {
  const int d = padded(plan.geometry.d), dv = padded(plan.geometry.dv), k = plan.tile.k;
  for (int key = 0; key < keys; key += kPanel) {
    plain_product<Into::overwrite>(pairs(scratch.q_rows), d, padded(rows),
                                   pairs(scratch.k_transposed) + std::int64_t{key} * d, kPairRow, d, scratch.p + key,
                                   k);
    plain_product<Into::overwrite>(pairs(scratch.dout_rows), dv, padded(rows),
                                   pairs(scratch.v_transposed) + std::int64_t{key} * dv, kPairRow, dv, scratch.ds + key,
                                   k);
  }
}

inline void add_gradients(const BackwardPlan& plan, int rows, int keys, const BackwardScratch& scratch, float* dq,
                          float* dk, float* dv) {
  const int d = padded(plan.geometry.d), columns_v = padded(plan.geometry.dv);
  const int q = plan.tile.q, k = plan.tile.k, depth = padded(rows), keys_depth = padded(keys);
  for (int row = rows; row < depth; ++row) {
    __builtin_memset(scratch.p + row * k, 0, static_cast<std::size_t>(keys_depth) * sizeof(float));
    __builtin_memset(scratch.ds + row * k, 0, static_cast<std::size_t>(keys_depth) * sizeof(float));
  }
  std::uint16_t* const weights = pairs(scratch.weights);
  round_columns(scratch.p, k, depth, keys_depth, weights, q);
  const int key_rows = round_up(keys, kBlockRows);
  for (int column = 0; column < columns_v; column += kPanel) {
    plain_product<Into::add>(weights, q, key_rows, pairs(scratch.dout) + std::int64_t{column} * q, kPairRow, depth,
                             dv + column, plan.dv_columns);
  }
  round_columns(scratch.ds, k, depth, keys_depth, weights, q);
  for (int column = 0; column < d; column += kPanel) {
    plain_product<Into::add>(weights, q, key_rows, pairs(scratch.q) + std::int64_t{column} * q, kPairRow, depth,
                             dk + column, plan.d);
  }
  round_rows(scratch.ds, k, depth, keys_depth, weights);
  for (int column = 0; column < d; column += kPanel) {
    plain_product<Into::add>(weights, k, round_up(rows, kBlockRows), pairs(scratch.k) + std::int64_t{column} * k,
                             kPairRow, keys_depth, dq + column, plan.d);
  }
}

}  // namespace fattn::host::FATTN_TARGET
