// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace fattn::gpu::ptx {

// No instruction: keeps the compiler from moving uses of the registers across this point.
template <int count>
__device__ __forceinline__ void pin(float (&registers)[count]) {
#pragma unroll
  for (int i = 0; i < count; i++) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int count>
__device__ __forceinline__ void pin(std::uint32_t (&registers)[count]) {
#pragma unroll
  for (int i = 0; i < count; i++) asm volatile("" : "+r"(registers[i])::"memory");
}

__device__ __forceinline__ void pin(std::uint32_t& value) { asm volatile("" : "+r"(value)); }
__device__ __forceinline__ void pin(int& value) { asm volatile("" : "+r"(value)); }

}  // namespace fattn::gpu::ptx
