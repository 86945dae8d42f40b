// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "core/registry.hpp"

namespace fattn {

// plan() over a table of rows of the caller's choice. `forced` is a comma separated list of row names, or empty.
Plan plan_from(std::span<const Row> table, const Problem& problem, const Device& device, std::string_view forced);

// Throws Error(invalid_argument) for a CPU that names more threads than a pool may have, or, where it is to run,
// instructions that this machine lacks. Devices are plain values: anyone may write one.
void require_usable(const Device& device);

}  // namespace fattn
