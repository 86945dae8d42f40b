// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

#include "algebra/mask_band.hpp"
#include "algebra/rounding.hpp"
#include "cpu/pair_kernels.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET amx_test
FATTN_BEGIN_TARGET("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")
#include "cpu/gemm/amx.hpp"

#include "cpu/pair_kernels-inl.hpp"
FATTN_END_TARGET

namespace fattn::host {

const PairKernels kAmxPairKernels = amx_test::pair_kernels("amx");

}  // namespace fattn::host
