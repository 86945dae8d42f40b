// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/softmax/scores-inl.hpp"

// The softmax for targets whose operands are fp32 (products/vector-inl.hpp): a pass over each panel after its product,
// the output of all panels at once.
namespace fattn::host::FATTN_TARGET {

// Scores of one panel of queries become weights exp2((score - max) * c), and the state of the rows follows. This is
// merge() of algebra/softmax_state.hpp, lane by lane, with the tile as the other side.
template <DType dtype>
void online_softmax(const ScoreTile& tile, const ForwardScratch& scratch, int panel, int stride, float c) {
  const Vec nothing = splat(-kInfinity), scale = splat(c);
  float* const column = scratch.s + panel * kPanel;
  float* const max_at = scratch.max + panel * kPanel;
  Vec top[kPanelVecs], base[kPanelVecs], total[kPanelVecs];
  FATTN_UNROLL(8)
  for (int j = 0; j < kPanelVecs; ++j) {
    top[j] = load(max_at + j * kLanes);
    total[j] = zero();
  }
  for (int i = 0; i < tile.keys; ++i) {
    FATTN_UNROLL(8)
    for (int j = 0; j < kPanelVecs; ++j) top[j] = max(load(column + i * stride + j * kLanes), top[j]);
  }
  // Without a key so far the differences would be NaN; any finite base gives weights of 0.
  FATTN_UNROLL(8)
  for (int j = 0; j < kPanelVecs; ++j) base[j] = select(top[j] == nothing, zero(), top[j]);
  for (int i = 0; i < tile.keys; ++i) {
    FATTN_UNROLL(8)
    for (int j = 0; j < kPanelVecs; ++j) {
      float* const at = column + i * stride + j * kLanes;
      const Vec weight = exp2((load(at) - base[j]) * scale);
      total[j] = total[j] + weight;
      store(at, for_products<dtype>(weight));
    }
  }
  FATTN_UNROLL(8)
  for (int j = 0; j < kPanelVecs; ++j) {
    const int lane = panel * kPanel + j * kLanes;
    const Vec old = load(max_at + j * kLanes);
    const Vec factor = select(old == nothing, zero(), exp2((old - base[j]) * scale));
    store(scratch.factor + lane, factor);
    store(scratch.sum + lane, fma(load(scratch.sum + lane), factor, total[j]));
    store(max_at + j * kLanes, top[j]);
  }
}

// The weights of dropped pairs are in the sum, and nowhere else.
inline void drop_weights(const ScoreTile& tile, const ForwardScratch& scratch, int panel, int stride) {
  for (int i = 0; i < tile.keys; ++i) {
    for (int j = 0; j < kPanelVecs; ++j) {
      const int at = i * stride + panel * kPanel + j * kLanes;  // marks lie like scores
      const MaskVec kept = splat(kDropped) < load(tile.marks + at);
      store(scratch.s + at, select(kept, load(scratch.s + at), zero()));
    }
  }
}

// No query of the panel sees the tile: its weights are zeros.
inline void no_weights(const ScoreTile& tile, const ForwardScratch& scratch, int panel, int stride) {
  for (int j = 0; j < kPanelVecs; ++j) store(scratch.factor + panel * kPanel + j * kLanes, splat(1.0f));
  for (int i = 0; i < tile.keys; ++i) {
    for (int j = 0; j < kPanelVecs; ++j) store(scratch.s + i * stride + panel * kPanel + j * kLanes, zero());
  }
}

// A group of one tile of keys: S = Q K^T, the softmax, O = O * factor + P V.
inline void forward_step(const ForwardPlan& plan, const ScoreTile* tiles, int, const RowsAhead&,
                         const ForwardScratch& scratch) {
  const Geometry& g = plan.geometry;
  const ScoreTile& tile = *tiles;
  const int stride = plan.tile.q;
  const float c = g.plain ? g.scale * kLog2e : kLog2e;
  int begin = tile.rows, end = 0;  // queries that see something of the tile
  for (int panel = 0; panel * kPanel < tile.rows; ++panel) {
    const Share share = share_of_panel(tile, scratch, panel);
    if (share == Share::none) {
      no_weights(tile, scratch, panel, stride);
      continue;
    }
    begin = min_of(begin, panel * kPanel);
    end = min_of((panel + 1) * kPanel, tile.rows);
    scores_of_panel(plan, tile.keys, panel, scratch);
    finish_scores(g, tile, scratch, panel, share, {scratch.s + panel * kPanel, stride});
    switch (g.problem.dtype) {
      case DType::bf16: online_softmax<DType::bf16>(tile, scratch, panel, stride, c); break;
      case DType::fp16: online_softmax<DType::fp16>(tile, scratch, panel, stride, c); break;
      default: online_softmax<DType::fp32>(tile, scratch, panel, stride, c); break;
    }
    if (g.drops) drop_weights(tile, scratch, panel, stride);
  }
  output_of_tile(plan, begin, end, tile.keys, scratch);
}

// Rows have seen their largest raw score when the problem is plain.
inline const float* largest_raw_scores(const ForwardScratch& scratch) { return scratch.max; }

}  // namespace fattn::host::FATTN_TARGET
