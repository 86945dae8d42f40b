// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "algebra/mask_band.hpp"
#include "algebra/rounding.hpp"
#include "cpu/micro_kernels.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET scalar_test
#include "cpu/gemm/scalar.hpp"

#include "cpu/score-inl.hpp"

#include "cpu/micro_kernels-inl.hpp"

namespace fattn::host {

const MicroKernels kScalarMicroKernels = {"scalar",
                                          scalar_test::kLanes,
                                          scalar_test::kBlockRows,
                                          scalar_test::kPanel,
                                          scalar_test::exp2_all,
                                          scalar_test::tanh_all,
                                          scalar_test::round_all,
                                          scalar_test::store_row,
                                          scalar_test::pack_panels,
                                          scalar_test::pack_transposed,
                                          scalar_test::qk_any,
                                          scalar_test::pv};

}  // namespace fattn::host
