// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/marks-inl.hpp"
#include "cpu/score-inl.hpp"

// Scores of the forward pass between the two products: what both kinds of targets do to them before the softmax.
namespace fattn::host::FATTN_TARGET {

// What a tile of scores needs to know beside its numbers.
struct ScoreTile {
  Band band;
  int query;                   // first of the tile
  int rows;                    // queries of the tile
  float slope;                 // ALiBi
  int key = 0;                 // first of the tile
  int keys = 0;                // of the tile
  bool masked = false;         // some pair may be invisible
  const int* marks = nullptr;  // [tile.k][marks_stride]; null: the Band says all
  int marks_stride = 0;
};

// Scores of one panel: a row for each key, kPanel queries wide; behind every 16 of them the next lie `half` further on.
struct PanelScores {
  float* at;
  std::int64_t stride;
  std::int64_t half = 16;

  FATTN_INLINE float* row(int i, int lane) const { return at + i * stride + lane / 16 * half + lane % 16; }
};

// Rows of K and V that the next group of tiles will pack, fetched a few at a time while this one is multiplied: the
// hardware does not follow rows far apart.
class RowsAhead {
 public:
  RowsAhead() = default;
  RowsAhead(const RowsSource& k, const RowsSource& v, int turns) : k_(k), v_(v), each_(ceil_div(k.rows, turns)) {}

  // Inline at all costs: GCC takes a function that only prefetches for one that does nothing.
  FATTN_INLINE void turn() {
    const int end = min_of(row_ + each_, k_.rows);
    for (; row_ < end; ++row_) {
      fetch(k_);
      fetch(v_);
    }
  }

 private:
  FATTN_INLINE void fetch(const RowsSource& rows) const {
    const std::int64_t bytes = size_of(rows.dtype);
    const char* const row = static_cast<const char*>(rows.data) + row_ * rows.row_stride * bytes;
    for (std::int64_t at = 0; at < rows.columns * bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
  }

  RowsSource k_{}, v_{};
  int row_ = 0, each_ = 0;
};

// How much of a panel is kept; a tile of many panels may be masked for a few of them.
inline Share share_of_panel(const ScoreTile& tile, const ForwardScratch& scratch, int panel) {
  bool any = true, all = true;
  if (tile.masked) {
    // Without branches, so that the compiler makes vectors of it.
    const int end = tile.key + tile.keys, row = panel * kPanel;
    int some_see = 0, all_see = 1;
    for (int i = row; i < row + min_of(kPanel, tile.rows - row); ++i) {
      const int first = scratch.first[i], last = scratch.last[i];
      some_see |= static_cast<int>(first < end) & static_cast<int>(last > tile.key);
      all_see &= static_cast<int>(first <= tile.key) & static_cast<int>(last >= end);
    }
    any = some_see != 0, all = all_see != 0;
  }
  if (any && tile.marks != nullptr) {
    const int* line = tile.marks + panel * kPanel;
    int marks = 0;
    for (int i = 0; i < tile.keys; ++i, line += tile.marks_stride) {
      for (int j = 0; j < min_of(kPanel, tile.rows - panel * kPanel); ++j) marks |= line[j];
    }
    any = marks != kUnseen, all = false;
  }
  return any ? (all ? Share::all : Share::some) : Share::none;
}

// Which of the lanes that the Band keeps are marked as seen.
inline MaskVec seen(const ScoreTile& tile, int at, MaskVec keep) {
  return tile.marks == nullptr ? keep : keep & (splat(kUnseen) < load(tile.marks + at));
}

// Steps 1 to 4 of docs/numerics.md on the raw scores of one panel of queries, and the largest scaled score.
inline void modify_scores(const Geometry& g, const ScoreTile& tile, const ForwardScratch& scratch, int panel,
                          const PanelScores& scores) {
  const Vec scale = splat(g.scale), slope = splat(tile.slope);
  const Softcap softcap(g.softcap);
  for (int j = 0; j < kPanelVecs; ++j) {
    const int lane = panel * kPanel + j * kLanes;
    const IntVec first = load(scratch.first + lane), last = load(scratch.last + lane);
    const IntVec diagonal = count_from(tile.band.diagonal(tile.query + lane));
    Vec top = load(scratch.max_logit + lane);
    for (int i = 0; i < tile.keys; ++i) {
      float* const at = scores.row(i, j * kLanes);
      const IntVec key = splat(tile.key + i);
      Vec x = load(at) * scale;
      const Vec logit = select(seen(tile, i * tile.marks_stride + lane, within(key, first, last)), x, top);
      top = select(logit == logit, max(logit, top), logit);  // NaN stays: max() gives its second argument beside it
      x = softcap.apply(x);
      if (scratch.bias != nullptr) x = x + load(scratch.bias + (panel * tile.keys + i) * kPanel + j * kLanes);
      store(at, x - alibi(slope, diagonal, key));
    }
    store(scratch.max_logit + lane, top);
  }
}

inline void mask_scores(const ScoreTile& tile, const ForwardScratch& scratch, int panel, const PanelScores& scores) {
  const Vec nothing = splat(-kInfinity);
  for (int j = 0; j < kPanelVecs; ++j) {
    const int lane = panel * kPanel + j * kLanes;
    const IntVec first = load(scratch.first + lane), last = load(scratch.last + lane);
    for (int i = 0; i < tile.keys; ++i) {
      float* const at = scores.row(i, j * kLanes);
      const MaskVec keep = seen(tile, i * tile.marks_stride + lane, within(splat(tile.key + i), first, last));
      store(at, select(keep, load(at), nothing));
    }
  }
}

// What comes between the product and the softmax.
inline void finish_scores(const Geometry& g, const ScoreTile& tile, const ForwardScratch& scratch, int panel,
                          Share share, const PanelScores& scores) {
  if (!g.plain) modify_scores(g, tile, scratch, panel, scores);
  if (share != Share::all) mask_scores(tile, scratch, panel, scores);
}

}  // namespace fattn::host::FATTN_TARGET
