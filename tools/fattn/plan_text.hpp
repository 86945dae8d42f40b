// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "fattn/plan.hpp"

namespace fattn::tool {

// A plan for a person: problem, device, kernel, launch, cost beside standard attention, rows that declined.
std::string plan_text(const Plan& plan);

}  // namespace fattn::tool
