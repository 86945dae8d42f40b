// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "fattn/problem.hpp"

namespace fattn::host {

// Why no row of this room serves the problem, whatever the target; empty: they do.
std::string decline(const Problem& problem, Pass pass);

// For rows that multiply bf16 in pairs.
std::string decline_pairs(const Problem& problem, Pass pass);

}  // namespace fattn::host
