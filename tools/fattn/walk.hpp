// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "arguments.hpp"
#include "fattn/problem.hpp"

namespace fattn::tool {

struct WalkTile {
  int queries = 4;
  int keys = 4;
};

// One head's attention, forward and backward, tile by tile in fp64 with every number on the way: the running maximum
// and sum, the factor that rescales what was there, two parts of the keys merged, then P, dP and dS once more. Refuses
// problems that are too large to read or have data that this does not show.
//
// -inf stands where nothing was seen. `errors` holds the distance from the fp64 oracle's o, lse, dq, dk and dv.
Json walk(const Problem& problem, std::int64_t head, WalkTile tile, std::uint64_t seed);

// How far from the oracle a walk may end. The oracle's lse is rounded to fp32, so 2^-24 of numbers near 10.
inline constexpr double kWalkError = 1e-5;

}  // namespace fattn::tool
