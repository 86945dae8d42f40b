// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/vec/scalar.hpp"

namespace fattn::host::FATTN_TARGET {

inline constexpr int kBlockRows = 3;
inline constexpr int kPanel = 4;
inline constexpr const char* kKernelText = "fp32 scalar, 3x4 kernel";

}  // namespace fattn::host::FATTN_TARGET

#include "cpu/gemm/vector-inl.hpp"
