// SPDX-License-Identifier: Apache-2.0
#include "cpu/pair_kernels.hpp"

namespace fattn::host {

const PairKernels kAvx512PairKernels = {}, kAmxPairKernels = {};

}  // namespace fattn::host
