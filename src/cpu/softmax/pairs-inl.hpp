// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/softmax/scores-inl.hpp"

// The softmax for targets that multiply bf16 in pairs (products/pairs-inl.hpp). Tile instructions leave the vector
// units idle, so weights are computed between them. A unit is one panel of queries and one tile of keys; while unit u
// multiplies with V, vectors work on the weights of u + 1, and they go on while u + 2 multiplies K with Q. The tiles of
// a group follow each other for one panel, whose output then stays in the first cache.
namespace fattn::host::FATTN_TARGET {

// A row's base follows its maximum only when that is ahead by so many powers of two: the output is then rarely
// rescaled, and weights stay below 2^8.
inline constexpr float kBehind = 8;

// Keys whose weights are computed side by side.
inline constexpr int kKeysTogether = 2;

// Scores of one unit become weights exp2((score - base) * c), kKeysTogether keys at a time, rounded to the pairs that P
// V takes: in place, row i of the pairs lies where row i of the scores lay.
template <bool drops>
class Weights {
 public:
  Weights(const ScoreTile& tile, const PanelScores& scores, int panel, const float* base, float c)
      : from_(scores.at),
        to_(scores.at),
        half_(scores.half),
        left_(tile.keys / kKeysTogether),
        keys_(tile.keys),
        scale_(splat(c)) {
    if (drops) marks_ = tile.marks + panel * kPanel;
    marks_stride_ = tile.marks_stride;
    FATTN_UNROLL(32)
    for (int j = 0; j < kPanelVecs; ++j) {
      const Vec lanes = load(base + j * kLanes);
      // Without a key so far the differences would be NaN; any finite base gives weights of 0.
      shift_[j] = select(lanes == splat(-kInfinity), zero(), zero() - lanes * scale_);
      total_[j] = zero();
    }
  }

  // For the next `turns` turns: `share` of them have work to do, evenly spread.
  void spread(int share, int turns) { share_ = min_of(share, left_), turns_ = turns, credit_ = 0; }
  FATTN_INLINE void turn() {
    credit_ += share_;
    if (credit_ < turns_) return;
    credit_ -= turns_, --left_;
    step<kKeysTogether>();
  }
  // Whether every turn that comes has work (1), every second one (2), or neither (0): turn() finds out, go() knows.
  static constexpr bool kRegular = true;
  int period() const { return share_ == turns_ ? 1 : 2 * share_ == turns_ ? 2 : 0; }
  FATTN_INLINE void go() {
    --left_;
    step<kKeysTogether>();
  }
  int left() const { return left_; }

  // What is left; then zeros up to whole pairs of tiles.
  void finish() {
    for (; left_ > 0; --left_) step<kKeysTogether>();
    for (int i = keys_ / kKeysTogether * kKeysTogether; i + 2 <= keys_; i += 2) step<2>();
    int row = keys_ / 2;
    if (keys_ % 2 != 0) {
      for (int j = 0; j < kPanelVecs; ++j) {
        const Vec x = exp2_of_weight(fma(load(from_ + lane_at(half_, j * kLanes)), scale_, shift_[j]));
        total_[j] = total_[j] + x;
        store_bits(to_ + lane_at(half_, j * kLanes), pairs_of_weights(kept(x, 0, j), zero()));
      }
      ++row, to_ += kRowStep;
    }
    for (; row < round_up(keys_, kPairDepth) / 2; ++row, to_ += kRowStep) {
      for (int j = 0; j < kPanelVecs; ++j) store(to_ + lane_at(half_, j * kLanes), zero());
    }
  }
  Vec total(int j) const { return total_[j]; }

 private:
  // The next keys, a multiple of two.
  template <int keys>
  FATTN_INLINE void step() {
    Vec x[keys * kPanelVecs];
    FATTN_UNROLL(32)
    for (int j = 0; j < keys * kPanelVecs; ++j) {
      const float* const at = from_ + j / kPanelVecs * kRowStep + lane_at(half_, j % kPanelVecs * kLanes);
      x[j] = fma(load(at), scale_, shift_[j % kPanelVecs]);
    }
    exp2_of_weights(x);
    FATTN_UNROLL(32)
    for (int j = 0; j < keys * kPanelVecs; ++j) total_[j % kPanelVecs] = total_[j % kPanelVecs] + x[j];
    FATTN_UNROLL(32)
    for (int row = 0; row < keys; row += 2) {
      FATTN_UNROLL(32)
      for (int j = 0; j < kPanelVecs; ++j) {
        const Vec first = kept(x[row * kPanelVecs + j], row, j);
        store_bits(to_ + lane_at(half_, j * kLanes),
                   pairs_of_weights(first, kept(x[(row + 1) * kPanelVecs + j], row + 1, j)));
      }
      to_ += kRowStep;
    }
    from_ += keys * kRowStep;
    if (drops) marks_ += keys * marks_stride_;
  }
  // The weights of dropped pairs are in the sum, and nowhere else.
  FATTN_INLINE Vec kept(Vec x, int row, int j) {
    if (!drops) return x;
    return select(splat(kDropped) < load(marks_ + row * marks_stride_ + j * kLanes), x, zero());
  }

  const float* from_;
  float* to_;
  std::int64_t half_;
  int left_, keys_, share_ = 0, turns_ = 1, credit_ = 0;
  const int* marks_ = nullptr;
  int marks_stride_;
  Vec scale_, shift_[kPanelVecs], total_[kPanelVecs];
};

// The bases of one panel after its scores, and what that makes of the sums so far. factor: [kPanel]
inline void move_bases(int keys, const ForwardScratch& scratch, int panel, const PanelScores& scores, bool plain,
                       float c, float* factors) {
  const Vec nothing = splat(-kInfinity), scale = splat(c), ahead = splat(kBehind / c);
  // Four rows at a time: one after the other would wait for each comparison.
  constexpr int kChains = 4;
  Vec tops[kChains][kPanelVecs];
  FATTN_UNROLL(4)
  for (int i = 0; i < kChains; ++i) {
    FATTN_UNROLL(32)
    for (int j = 0; j < kPanelVecs; ++j) tops[i][j] = load(scores.row(0, j * kLanes));
  }
  int row = 1;
  for (; row + kChains <= keys; row += kChains) {
    FATTN_UNROLL(4)
    for (int i = 0; i < kChains; ++i) {
      FATTN_UNROLL(32)
      for (int j = 0; j < kPanelVecs; ++j) {
        tops[i][j] = max(load(scores.row(row + i, j * kLanes)), tops[i][j]);
      }
    }
  }
  for (; row < keys; ++row) {
    for (int j = 0; j < kPanelVecs; ++j) tops[0][j] = max(load(scores.row(row, j * kLanes)), tops[0][j]);
  }
  for (int j = 0; j < kPanelVecs; ++j) {
    const int lane = panel * kPanel + j * kLanes;
    const Vec top = max(max(tops[0][j], tops[1][j]), max(tops[2][j], tops[3][j]));
    const Vec old = load(scratch.max + lane);
    const Vec base = select(old + ahead < top, top, old);
    const Vec factor = select(old == nothing, zero(), select(base == old, splat(1.0f), exp2((old - base) * scale)));
    store(factors + j * kLanes, factor);
    store(scratch.sum + lane, load(scratch.sum + lane) * factor);
    store(scratch.max + lane, base);
    if (plain) store(scratch.max_logit + lane, max(top, load(scratch.max_logit + lane)));
  }
}

// Exponents from here on (2^x) differ from their base's by rounding errors that are no longer small.
inline constexpr float kFarExponent = 1024;

// Scores and bases of one panel as the weights take them, score * c - base * c in one step: the product is exact there
// and base * c is not, so far from 0 the bases are taken off first and are 0 then. Returns the bases.
inline const float* near_bases(int keys, const float* bases, const PanelScores& scores, float c) {
  static constexpr float kZeros[kPanel] = {};
  bool near = true;
  for (int j = 0; j < kPanelVecs; ++j) {
    const Vec lanes = load(bases + j * kLanes);
    near = near && all(abs(select(lanes == splat(-kInfinity), zero(), lanes) * splat(c)) < splat(kFarExponent));
  }
  if (near) return bases;
  for (int j = 0; j < kPanelVecs; ++j) {
    const Vec lanes = load(bases + j * kLanes), base = select(lanes == splat(-kInfinity), zero(), lanes);
    for (int i = 0; i < keys; ++i) {
      float* const at = scores.row(i, j * kLanes);
      store(at, load(at) - base);
    }
  }
  return kZeros;
}

// The units of a group of key tiles that hold a visible pair, panel by panel. Scores, and the factors of the output,
// take turns in two places.
class Units {
 public:
  Units(const ForwardPlan& plan, const ScoreTile* tiles, int count, const ForwardScratch& scratch)
      : plan_(plan), tiles_(tiles), count_(count), scratch_(scratch) {
    next();
  }
  void next() {
    do {
      if (++tile_ == count_) tile_ = 0, ++panel_;
      if (done()) return;
      share_ = share_of_panel(tiles_[tile_], scratch_, panel_);
    } while (share_ == Share::none);
    ++number_;
  }
  bool done() const { return panel_ * kPanel >= tiles_->rows; }
  const ScoreTile& tile() const { return tiles_[tile_]; }
  Unit unit() const {
    return {panel_, tile_, tiles_[tile_].keys, scratch_.s + (number_ & 1) * std::int64_t{plan_.tile.k} * kPanel,
            scratch_.factor + (number_ & 1) * kPanel};
  }
  Share share() const { return share_; }

 private:
  const ForwardPlan& plan_;
  const ScoreTile* tiles_;
  int count_;
  const ForwardScratch& scratch_;
  int panel_ = 0, tile_ = -1, number_ = 0;
  Share share_ = Share::all;
};

template <bool drops>
void forward_units(const ForwardPlan& plan, const ScoreTile* tiles, int count, RowsAhead ahead,
                   const ForwardScratch& scratch) {
  const Geometry& g = plan.geometry;
  const float c = g.plain ? g.scale * kLog2e : kLog2e;
  Units units(plan, tiles, count, scratch);
  if (units.done()) return;
  const auto begin = [&](const Unit& unit) {
    const PanelScores scores{unit.scores, kRowStep, half_step(plan.tile.k)};
    finish_scores(g, units.tile(), scratch, unit.panel, units.share(), scores);
    move_bases(unit.keys, scratch, unit.panel, scores, g.plain, c, unit.factor);
    const float* const bases = near_bases(unit.keys, scratch.max + unit.panel * kPanel, scores, c);
    return Weights<drops>(units.tile(), scores, unit.panel, bases, c);
  };
  Nothing nothing;
  Unit unit = units.unit();
  scores_of_unit(plan, unit, scratch, nothing);
  Weights<drops> weights = begin(unit);
  for (;;) {
    ahead.turn();
    units.next();
    const Unit next = units.unit();
    if (!units.done()) {
      weights.spread(weights.left(), turns_of_scores(plan, next));
      scores_of_unit(plan, next, scratch, weights);
    }
    weights.finish();
    for (int j = 0; j < kPanelVecs; ++j) {
      float* const sum = scratch.sum + unit.panel * kPanel + j * kLanes;
      store(sum, load(sum) + weights.total(j));
    }
    if (units.done()) break;
    weights = begin(next);
    weights.spread((weights.left() + 1) / 2, turns_of_output(plan, unit));
    output_of_unit(plan, unit, scratch, weights);
    unit = next;
  }
  output_of_unit(plan, unit, scratch, nothing);
}

// A group of key tiles: for each S^T = K Q^T, the softmax, O^T = O^T * factor + V^T P^T.
inline void forward_step(const ForwardPlan& plan, const ScoreTile* tiles, int count, const RowsAhead& ahead,
                         const ForwardScratch& scratch) {
  if (plan.geometry.drops) return forward_units<true>(plan, tiles, count, ahead, scratch);
  forward_units<false>(plan, tiles, count, ahead, scratch);
}

inline const float* largest_raw_scores(const ForwardScratch& scratch) { return scratch.max_logit; }

}  // namespace fattn::host::FATTN_TARGET
