// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "algebra/mask_band.hpp"
#include "fattn/mask.hpp"

namespace fattn {

// True when the mask is one interval of keys per query, that is, when lower_band() says all of it.
inline bool is_band(const Mask& mask) { return !mask.documents && !mask.prefix && !mask.block_sparse; }

// The Band part of a valid Mask; atoms that are not Bands are left out. Limits beyond every length become kUnbounded.
inline BandLimits lower_band(const Mask& mask) {
  const auto limit = [](std::int64_t keys) {
    return keys < 0 ? kUnbounded : static_cast<int>(std::min<std::int64_t>(keys, kUnbounded));
  };
  BandLimits limits;
  limits.left = limit(mask.window_left);
  limits.right = mask.causal ? 0 : limit(mask.window_right);
  limits.chunk = limit(mask.chunk);
  limits.top_left = mask.causal_top_left;
  return limits;
}

}  // namespace fattn
