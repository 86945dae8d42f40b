// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

#include "algebra/mask_band.hpp"
#include "algebra/rounding.hpp"
#include "cpu/pair_kernels.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET avx512_bf16_test
FATTN_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")
#include "cpu/gemm/avx512_bf16.hpp"

#include "cpu/pair_kernels-inl.hpp"
FATTN_END_TARGET

namespace fattn::host {

const PairKernels kAvx512PairKernels = avx512_bf16_test::pair_kernels("avx512_bf16");

}  // namespace fattn::host
