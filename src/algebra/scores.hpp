// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/host_device.hpp"

namespace fattn {

// One runtime family of score modifiers: softcap after the scale, then ALiBi. Bias is added by the caller between the
// two, because it is data. Tanh is passed in so that each backend keeps its own precision.
template <class Real>
struct ModifiedScore {
  Real scale;
  Real softcap;  // 0: none

  // raw = q.k
  template <class Tanh>
  FATTN_HD Real capped(Real raw, Tanh tanh) const {
    const Real scaled = raw * scale;
    return softcap > Real(0) ? softcap * tanh(scaled / softcap) : scaled;
  }
  // d capped / d raw, from the capped value: tanh' = 1 - tanh^2.
  FATTN_HD Real derivative(Real capped_value) const {
    if (!(softcap > Real(0))) return scale;
    const Real t = capped_value / softcap;
    return scale * (Real(1) - t * t);
  }
};

// slope * -|diagonal - key|
template <class Real>
FATTN_HD Real alibi(Real slope, int diagonal, int key) {
  const int distance = diagonal > key ? diagonal - key : key - diagonal;
  return -slope * static_cast<Real>(distance);
}

}  // namespace fattn
