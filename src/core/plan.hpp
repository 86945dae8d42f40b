// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "core/registry.hpp"

namespace fattn {

// plan() over a table of rows of the caller's choice. `forced` is a comma separated list of row names, or empty.
Plan plan_from(std::span<const Row> table, const Problem& problem, const Device& device, std::string_view forced);

}  // namespace fattn
