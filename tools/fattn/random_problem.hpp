// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "verify/case_line.hpp"

namespace fattn::tool {

// A small valid problem drawn from everything that a Problem can say, and how its data are drawn. `number` counts the
// problems of one seed; the same two give the same case everywhere.
verify::Case random_case(std::uint64_t seed, std::int64_t number);

}  // namespace fattn::tool
