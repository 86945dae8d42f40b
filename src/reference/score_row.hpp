// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "algebra/mask_band.hpp"
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

// One row of S: scores[j - keys.begin] for the keys that the query sees, after step 4 of docs/numerics.md, "Scores".
template <class Real>
struct ScoreRow {
  Interval keys;
  Real max = -static_cast<Real>(INFINITY);        // -inf: no key, or none with a score above -inf
  Real max_logit = -static_cast<Real>(INFINITY);  // after step 1

  int count() const { return max_of(keys.end - keys.begin, 0); }
};

// q is the query's row, k the keys of the sequence [length, head_dim]. cap_slope, if not null, gets the derivative of
// step 2 for each key.
template <class Real>
ScoreRow<Real> score_row(const ProblemView& view, const Band& band, std::int64_t batch, std::int64_t head, int query,
                         const Real* q, const Real* k, Real* scores, Real* cap_slope) {
  const Problem& problem = view.problem;
  const Real scale = static_cast<Real>(softmax_scale(problem));
  const ModifiedScore<Real> cap{Real(1), static_cast<Real>(problem.score.softcap)};
  ScoreRow<Real> row{band.visible(query)};
  const int count = row.count();

  for (int j = 0; j < count; ++j) {
    const Real logit = scale * dot(q, k + (row.keys.begin + j) * problem.head_dim, problem.head_dim);
    scores[j] = cap.capped(logit, [](Real x) { return std::tanh(x); });
    if (cap_slope != nullptr) cap_slope[j] = cap.derivative(scores[j]);
    if (!(logit <= row.max_logit)) row.max_logit = logit;  // a NaN stays
  }
  if (const auto& bias = problem.score.bias; bias && count > 0) {
    const std::int64_t first = view.bias_offset(batch, head, query);
    for (int j = 0; j < count; ++j) {
      Real value;
      load(bias->dtype, view.buffers.bias, first + (bias->keys ? row.keys.begin + j : 0), 1, 1, &value);
      scores[j] += value;
    }
  }
  if (problem.score.alibi != Alibi::none) {
    const bool per_batch = problem.score.alibi == Alibi::per_batch_and_head;
    const Real slope = static_cast<Real>(view.buffers.alibi_slopes[(per_batch ? batch * problem.heads_q : 0) + head]);
    for (int j = 0; j < count; ++j) scores[j] += alibi(slope, band.diagonal(query), row.keys.begin + j);
  }
  for (int j = 0; j < count; ++j) {
    if (!(scores[j] <= row.max)) row.max = scores[j];
  }
  return row;
}

// The row's softmax over its keys and the sink, which is -inf where there is none: weight = exp(score - max) / sum.
template <class Real>
SoftmaxState<Real> softmax_of(const ScoreRow<Real>& row, const Real* scores, Real sink) {
  SoftmaxState<Real> state = SoftmaxState<Real>::empty();
  const Real top = row.max < sink ? sink : row.max;
  if (top == state.max) return state;
  state = {top, std::exp(sink - top)};
  for (int j = 0; j < row.count(); ++j) state.sum += std::exp(scores[j] - top);
  return state;
}

}  // namespace fattn::reference
