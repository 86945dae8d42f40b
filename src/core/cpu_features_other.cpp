// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_features.hpp"

namespace fattn {

CpuFeatures cpu_features() { return {.name = "CPU"}; }

}  // namespace fattn
