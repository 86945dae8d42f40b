// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Ordinary accesses to shared memory by the addresses of ptx::shared_address.
namespace fattn::gpu::ptx {

__device__ __forceinline__ std::uint32_t load_shared(std::uint32_t from) {
  std::uint32_t value;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(from) : "memory");
  return value;
}

__device__ __forceinline__ float2 load_shared_2(std::uint32_t from) {
  float2 two;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(two.x), "=f"(two.y) : "r"(from) : "memory");
  return two;
}

__device__ __forceinline__ void store_shared_4(std::uint32_t to, float a, float b, float c, float d) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(a), "f"(b), "f"(c), "f"(d) : "memory");
}

__device__ __forceinline__ void store_shared(std::uint32_t to, std::uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}

// Messages between threads of a block: what a thread did before it stored a value is seen by whoever reads that.
__device__ __forceinline__ void store_shared_release(std::uint32_t to, std::uint32_t value) {
  asm volatile("st.release.cta.shared.u32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
__device__ __forceinline__ std::uint32_t load_shared_acquire(std::uint32_t from) {
  std::uint32_t value;
  asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(value) : "r"(from) : "memory");
  return value;
}

// Leaves the processor to others for a moment.
__device__ __forceinline__ void pause() { asm volatile("nanosleep.u32 64;" ::: "memory"); }

// 16 bytes of zeros.
__device__ __forceinline__ void clear_shared_16(std::uint32_t to) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
}

}  // namespace fattn::gpu::ptx
