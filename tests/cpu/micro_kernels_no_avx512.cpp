// SPDX-License-Identifier: Apache-2.0
#include "cpu/micro_kernels.hpp"

namespace fattn::host {

const MicroKernels kAvx512MicroKernels = {};

}  // namespace fattn::host
