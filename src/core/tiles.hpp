// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/kernel.hpp"

// All that core knows of rows whose tile is a number at run time. They are those of src/cpu, which implements this.
namespace fattn {

// "192x96", queries x keys, and "384x96x4" where four tiles of keys are packed at a time: the one that the row takes by
// itself, then every other. Empty: there is no choice. The row accepts the problem.
std::vector<std::string> tiles_of(const Kernel& row, const Problem& problem, const Device& device);

// What the row's prepare() does, with one of those.
Launch prepare_with_tile(const Kernel& row, const Problem& problem, const Device& device, std::string_view tile);

}  // namespace fattn
