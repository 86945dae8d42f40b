// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

#include "algebra/mask_band.hpp"
#include "algebra/rounding.hpp"
#include "cpu/micro_kernels.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET avx512_test
FATTN_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#include "cpu/gemm/avx512.hpp"

#include "cpu/score-inl.hpp"

#include "cpu/micro_kernels-inl.hpp"
FATTN_END_TARGET

namespace fattn::host {

const MicroKernels kAvx512MicroKernels = {"avx512",
                                          avx512_test::kLanes,
                                          avx512_test::kBlockRows,
                                          avx512_test::kPanel,
                                          avx512_test::exp2_all,
                                          avx512_test::tanh_all,
                                          avx512_test::round_all,
                                          avx512_test::store_row,
                                          avx512_test::pack_panels,
                                          avx512_test::pack_transposed,
                                          avx512_test::qk_any,
                                          avx512_test::pv};

}  // namespace fattn::host
