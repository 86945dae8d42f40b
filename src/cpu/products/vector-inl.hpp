// SPDX-License-Identifier: Apache-2.0
#pragma once

// The matrix products of both passes for targets whose operands are packed as fp32. A target includes this file or
// products/pairs-inl.hpp, which has the same functions; the passes know nothing of how operands lie.
namespace fattn::host::FATTN_TARGET {

static_assert(kSpill >= kBlockRows - 1, "micro-kernels write whole blocks of rows past the end of a sequence");

inline constexpr bool kPairs = false, kWholeTiles = false;

// A weight as the products take it.
template <DType dtype>
inline Vec for_products(Vec weight) {
  return Format<dtype>::round(weight);
}

// Forward: the operands of an item, of a tile of keys.
inline void begin_item(const ForwardPlan& plan, const RowsSource& q, const ForwardScratch& scratch) {
  pack_transposed(q, scratch.q);
  __builtin_memset(scratch.o, 0,
                   sizeof(float) * static_cast<std::size_t>(round_up(q.rows, kBlockRows)) *
                       static_cast<std::size_t>(round_up(plan.geometry.dv, kPanel)));
}
inline void load_keys(const ForwardPlan& plan, const RowsSource& k, const RowsSource& v, int,
                      const ForwardScratch& scratch) {
  pack_panels(k, plan.tile.k, scratch.k);
  pack_panels(v, plan.tile.k, scratch.v);
}

// S^T = K Q^T for one panel of queries.
inline void scores_of_panel(const ForwardPlan& plan, int keys, int panel, const ForwardScratch& scratch) {
  const RowsOperand k{scratch.k, kPanel, std::int64_t{plan.tile.k} * kPanel};
  const int d = plan.geometry.d;
  qk<Into::overwrite>(k, keys, scratch.q + std::int64_t{panel} * d * kPanel, d, scratch.s + panel * kPanel,
                      plan.tile.q);
}

// O = O * factor + P V for queries [begin, end) of the tile.
inline void output_of_tile(const ForwardPlan& plan, int begin, int end, int keys, const ForwardScratch& scratch) {
  const int dv = round_up(plan.geometry.dv, kPanel), first = begin / kBlockRows * kBlockRows;
  for (int column = 0; column < plan.geometry.dv; column += kPanel) {
    pv(scratch.s + first, plan.tile.q, end - first, scratch.v + std::int64_t{column} * plan.tile.k, keys,
       scratch.factor + first, scratch.o + std::int64_t{first} * dv + column, dv);
  }
}

// Row i of O. Asked in order.
inline float* output_row(const ForwardPlan& plan, int i, const ForwardScratch& scratch) {
  return scratch.o + std::int64_t{i} * round_up(plan.geometry.dv, kPanel);
}

// Rows lie as they are written; nothing is won by a panel at a time.
inline bool writes_panel(const ForwardWork&, std::int64_t, std::int64_t, std::int64_t, int, int,
                         const ForwardScratch&) {
  return false;
}

// sum[i] = a row i . b row i for one panel of rows, in the order in which qk() sums: where o is a row of v, because the
// query sees one key, dP - delta is then exactly 0.
inline void dot_panel(const RowsSource& a, const RowsSource& b, float* packed, float* sum) {
  float* const packed_b = packed + std::int64_t{a.columns} * kPanel;
  pack_transposed(a, packed);
  pack_transposed(b, packed_b);
  for (int j = 0; j < kPanel; j += kLanes) {
    Vec total = zero();
    for (int k = 0; k < a.columns; k += kDepth) {
      Vec part = zero();
      const int end = min_of(a.columns, k + kDepth);
      for (int i = k; i < end; ++i) part = fma(load(packed + i * kPanel + j), load(packed_b + i * kPanel + j), part);
      total = k == 0 ? part : total + part;
    }
    store(sum + j, total);
  }
}
inline void dot_panel(const BackwardPlan&, const RowsSource& a, const RowsSource& b, const BackwardScratch& scratch,
                      float* sum) {
  dot_panel(a, b, scratch.q, sum);
}

// Backward: the operands of a tile of keys, of a tile of queries.
inline void load_keys(const BackwardPlan& plan, const RowsSource& k, const RowsSource& v,
                      const BackwardScratch& scratch) {
  pack_panels(k, plan.tile.k, scratch.k);
  pack_transposed(k, scratch.k_transposed);
  pack_transposed(v, scratch.v_transposed);
}
inline void load_queries(const BackwardPlan& plan, const RowsSource& q, const RowsSource& dout,
                         const BackwardScratch& scratch) {
  pack_panels(q, plan.tile.q, scratch.q);
  pack_panels(dout, plan.tile.q, scratch.dout);
}

// S = Q K^T into p, dP = dO V^T into ds.
inline void scores_and_dp(const BackwardPlan& plan, int rows, int keys, const BackwardScratch& scratch) {
  const Geometry& g = plan.geometry;
  const Tile size = plan.tile;
  const RowsOperand q{scratch.q, kPanel, std::int64_t{size.q} * kPanel};
  const RowsOperand dout{scratch.dout, kPanel, std::int64_t{size.q} * kPanel};
  for (int key = 0; key < keys; key += kPanel) {
    qk<Into::overwrite>(q, rows, scratch.k_transposed + std::int64_t{key} * g.d, g.d, scratch.p + key, size.k);
    qk<Into::overwrite>(dout, rows, scratch.v_transposed + std::int64_t{key} * g.dv, g.dv, scratch.ds + key, size.k);
  }
}

// dV += P^T dO, dK += dS^T Q, dQ += dS K.
inline void add_gradients(const BackwardPlan& plan, int rows, int keys, const BackwardScratch& scratch, float* dq,
                          float* dk, float* dv) {
  const Geometry& g = plan.geometry;
  const Tile size = plan.tile;
  for (int column = 0; column < g.dv; column += kPanel) {
    pv(scratch.p, size.k, keys, scratch.dout + std::int64_t{column} * size.q, rows, nullptr, dv + column,
       plan.dv_columns);
  }
  const RowsOperand ds{scratch.ds, size.k, kPanel};
  for (int column = 0; column < g.d; column += kPanel) {
    pv(scratch.ds, size.k, keys, scratch.q + std::int64_t{column} * size.q, rows, nullptr, dk + column, plan.d);
    qk<Into::add>(ds, rows, scratch.k + std::int64_t{column} * size.k, keys, dq + column, plan.d);
  }
}

}  // namespace fattn::host::FATTN_TARGET
