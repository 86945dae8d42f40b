// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

#include "algebra/mask_band.hpp"
#include "algebra/rounding.hpp"
#include "cpu/micro_kernels.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET avx2_test
FATTN_BEGIN_TARGET("avx2,fma,f16c")
#include "cpu/gemm/avx2.hpp"

#include "cpu/score-inl.hpp"

#include "cpu/micro_kernels-inl.hpp"
FATTN_END_TARGET

namespace fattn::host {

const MicroKernels kAvx2MicroKernels = {"avx2",
                                        avx2_test::kLanes,
                                        avx2_test::kBlockRows,
                                        avx2_test::kPanel,
                                        avx2_test::exp2_all,
                                        avx2_test::tanh_all,
                                        avx2_test::round_all,
                                        avx2_test::store_row,
                                        avx2_test::pack_panels,
                                        avx2_test::pack_transposed,
                                        avx2_test::qk_any,
                                        avx2_test::pv};

}  // namespace fattn::host
