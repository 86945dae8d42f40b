// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/vec/avx512.hpp"

namespace fattn::host::FATTN_TARGET {

// 24 of the 32 registers accumulate, 2 hold a row of the panel, the broadcast elements come from memory.
inline constexpr int kBlockRows = 12;
inline constexpr int kPanel = 32;
inline constexpr const char* kKernelText = "fp32 AVX-512, 12x32 kernel";

}  // namespace fattn::host::FATTN_TARGET

#include "cpu/gemm/vector-inl.hpp"
