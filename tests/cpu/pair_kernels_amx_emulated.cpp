// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "algebra/mask_band.hpp"
#include "algebra/rounding.hpp"
#include "cpu/pair_kernels.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET amx_emulated_test
#include "cpu/gemm/amx_emulated.hpp"

#include "cpu/pair_kernels-inl.hpp"

namespace fattn::host {

const PairKernels kEmulatedPairKernels = amx_emulated_test::pair_kernels("amx_emulated");

}  // namespace fattn::host
