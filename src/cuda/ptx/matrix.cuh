// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Four 8 x 8 matrices of 16-bit elements between shared memory and a warp's registers. Lane 8 m + r gives the address
// of row r of matrix m.
namespace fattn::gpu::ptx {

__device__ __forceinline__ void ldmatrix(std::uint32_t (&to)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

__device__ __forceinline__ void stmatrix(std::uint32_t to, const std::uint32_t (&from)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(from[0]), "r"(from[1]),
               "r"(from[2]), "r"(from[3])
               : "memory");
}

// The same, each matrix transposed on the way.
__device__ __forceinline__ void stmatrix_trans(std::uint32_t to, const std::uint32_t (&from)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(from[0]),
               "r"(from[1]), "r"(from[2]), "r"(from[3])
               : "memory");
}

}  // namespace fattn::gpu::ptx
