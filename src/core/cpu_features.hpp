// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace fattn {

// What the processor has and the operating system has enabled. One file per architecture; CMake picks it.
struct CpuFeatures {
  std::string name;
  bool avx2 = false;    // with FMA and F16C
  bool avx512 = false;  // F, BW, DQ, VL
  bool avx512_bf16 = false;
  bool amx_bf16 = false;  // a process still has to ask Linux for permission to use the tiles
};
CpuFeatures cpu_features();

}  // namespace fattn
