// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/mask_band.hpp"

namespace fattn::gpu::tile {

// The Band mask as a kernel parameter; bind() gives the mask of one sequence.
struct BandMask {
  BandLimits limits;

  FATTN_HD Band bind(int seqlen_q, int seqlen_k) const { return Band::of(limits, seqlen_q, seqlen_k); }
};

}  // namespace fattn::gpu::tile
