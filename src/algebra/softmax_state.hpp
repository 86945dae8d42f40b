// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/host_device.hpp"

namespace fattn {

// What is left of a softmax over some keys: weights were exp(score - max), sum is their sum. Partial outputs, held
// beside it, are weighted sums of values with the same weights. No key seen: max = -inf, sum = 0.
template <class Real>
struct SoftmaxState {
  Real max;
  Real sum;

  FATTN_HD static SoftmaxState empty() { return {-static_cast<Real>(__builtin_inff()), Real(0)}; }
};

// The larger of two numbers, NaN if one of them is.
template <class Real>
FATTN_HD Real larger(Real a, Real b) {
  return a <= b ? b : b <= a ? a : a + b;  // beside NaN no comparison holds, and the sum is NaN
}

// Factors that bring two partial outputs to the merged state's reference: out = a * out_a + b * out_b.
template <class Real>
struct MergeFactors {
  Real a;
  Real b;
};

// The one home of the online-softmax rescale (Milakov and Gimelshein 2018; FlashAttention, algorithm 1): used between
// tiles, key splits, threads and ranks. `exp` is passed in so that each caller keeps its own precision.
template <class Real, class Exp>
FATTN_HD MergeFactors<Real> merge(SoftmaxState<Real>& state, const SoftmaxState<Real>& other, Exp exp) {
  const Real nothing = SoftmaxState<Real>::empty().max;
  const Real top = larger(state.max, other.max);
  // exp(-inf - -inf) is NaN: a side without keys gets the factor 0 instead.
  const Real a = state.max == nothing ? Real(0) : exp(state.max - top);
  const Real b = other.max == nothing ? Real(0) : exp(other.max - top);
  state = {top, state.sum * a + other.sum * b};
  return {a, b};
}

}  // namespace fattn
