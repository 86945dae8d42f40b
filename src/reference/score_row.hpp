// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "algebra/dropout.hpp"
#include "algebra/scores.hpp"
#include "algebra/softmax_state.hpp"
#include "reference/element.hpp"
#include "reference/problem_view.hpp"

namespace fattn::reference {

// Sums of 8 interleaved parts: a loop that compilers turn into vector code without changing its order.
template <class Real>
Real dot(const Real* a, const Real* b, std::int64_t count) {
  constexpr int kParts = 8;
  Real parts[kParts] = {};
  std::int64_t i = 0;
  for (; i + kParts <= count; i += kParts) {
    for (int part = 0; part < kParts; ++part) parts[part] += a[i + part] * b[i + part];
  }
  for (int part = 0; i < count; ++i, ++part) parts[part] += a[i] * b[i];
  return ((parts[0] + parts[4]) + (parts[1] + parts[5])) + ((parts[2] + parts[6]) + (parts[3] + parts[7]));
}

// out += factor * in
template <class Real>
void add_scaled(Real* out, Real factor, const Real* in, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) out[i] += factor * in[i];
}

// One row of S: scores[n] of the keys keys[n] that the query sees, ascending, after step 4 of docs/numerics.md,
// "Scores".
template <class Real>
struct ScoreRow {
  const std::int32_t* keys;
  int count = 0;
  Real max = -static_cast<Real>(INFINITY);        // -inf: no key, or none with a score above -inf
  Real max_logit = -static_cast<Real>(INFINITY);  // after step 1
};

// q is the query's row, k the keys of the sequence [length, head_dim]. keys and scores have room for all keys.
// cap_slope, if not null, gets the derivative of step 2 for each key.
template <class Real>
ScoreRow<Real> score_row(const Sequence& sequence, std::int64_t head, int query, const Real* q, const Real* k,
                         std::int32_t* keys, Real* scores, Real* cap_slope) {
  const ProblemView& view = sequence.view;
  const Problem& problem = view.problem;
  const Real scale = static_cast<Real>(softmax_scale(problem));
  const ModifiedScore<Real> cap{Real(1), static_cast<Real>(problem.score.softcap)};
  ScoreRow<Real> row{keys};
  const Interval interval = sequence.band.visible(query);
  const PairMask pairs = sequence.pairs(head);
  for (int key = interval.begin; key < interval.end; ++key) {
    if (pairs.keep(query, key)) keys[row.count++] = key;
  }

  for (int n = 0; n < row.count; ++n) {
    const Real logit = scale * dot(q, k + keys[n] * problem.head_dim, problem.head_dim);
    scores[n] = cap.capped(logit, [](Real x) { return std::tanh(x); });
    if (cap_slope != nullptr) cap_slope[n] = cap.derivative(scores[n]);
    row.max_logit = larger(row.max_logit, logit);
  }
  if (const auto& bias = problem.score.bias; bias && row.count > 0) {
    const std::int64_t first = view.bias_offset(sequence.batch, head, query);
    for (int n = 0; n < row.count; ++n) {
      Real value;
      load(bias->dtype, view.buffers.bias, first + (bias->keys ? keys[n] : 0), 1, 1, &value);
      scores[n] += value;
    }
  }
  if (problem.score.alibi != Alibi::none) {
    const bool per_batch = problem.score.alibi == Alibi::per_batch_and_head;
    const std::int64_t slice = (per_batch ? sequence.batch * problem.heads_q : 0) + head;
    const Real slope = static_cast<Real>(view.buffers.alibi_slopes[slice]);
    for (int n = 0; n < row.count; ++n) scores[n] += alibi(slope, sequence.band.diagonal(query), keys[n]);
  }
  for (int n = 0; n < row.count; ++n) row.max = larger(row.max, scores[n]);
  return row;
}

// What dropout makes of the weights of one row: factors[n] for the key keys[n], 0 or 1 / (1 - p). 1 without dropout.
template <class Real>
void dropout_factors(const Sequence& sequence, std::int64_t head, int query, const ScoreRow<Real>& row, Real* factors) {
  const Problem& problem = sequence.view.problem;
  if (problem.dropout == 0) return static_cast<void>(std::fill_n(factors, row.count, Real(1)));
  const DropoutRule rule = DropoutRule::of(problem.dropout);
  const auto slice = static_cast<std::uint32_t>(sequence.batch * problem.heads_q + head);
  const Buffers& buffers = sequence.view.buffers;
  const DropoutWords words = DropoutWords::of(*buffers.dropout_seed, *buffers.dropout_offset, slice);
  for (int n = 0; n < row.count; ++n) {
    factors[n] = words.word(query, row.keys[n]) >= rule.threshold ? static_cast<Real>(rule.factor) : Real(0);
  }
}

// The row's softmax over its keys and the sink, which is -inf where there is none: weight = exp(score - max) / sum.
template <class Sum, class Real>
SoftmaxState<Real> softmax_of(const ScoreRow<Real>& row, const Real* scores, Real sink) {
  SoftmaxState<Real> state = SoftmaxState<Real>::empty();
  const Real top = row.max < sink ? sink : row.max;
  if (top == state.max) return state;
  Sum sum = std::exp(sink - top);
  for (int n = 0; n < row.count; ++n) sum += std::exp(scores[n] - top);
  return {top, static_cast<Real>(sum)};
}

}  // namespace fattn::reference
