// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/vec/avx2.hpp"

namespace fattn::host::FATTN_TARGET {

// 12 of the 16 registers accumulate, 2 hold a row of the panel, 1 the broadcast element.
inline constexpr int kBlockRows = 6;
inline constexpr int kPanel = 16;
inline constexpr const char* kKernelText = "fp32 AVX2, 6x16 kernel";

}  // namespace fattn::host::FATTN_TARGET

#include "cpu/gemm/vector-inl.hpp"
