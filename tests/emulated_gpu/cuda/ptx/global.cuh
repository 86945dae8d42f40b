// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include "emulated_gpu/block.hpp"

// The same as src/cuda/ptx/global.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

inline int load_acquire(const int* from) {
  emulated_gpu::spin();
  return std::atomic_ref<int>(*const_cast<int*>(from)).load();
}
inline int load_relaxed(const int* from) { return std::atomic_ref<int>(*const_cast<int*>(from)).load(); }
inline void store_release(int* to, int value) { std::atomic_ref<int>(*to).store(value); }
inline void fence_device() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void store_relaxed(int* to, int value) { std::atomic_ref<int>(*to).store(value); }
inline void global_add(float* to, float a, float b, float c, float d) {
  const float more[4] = {a, b, c, d};
  for (int i = 0; i < 4; i++) std::atomic_ref<float>(to[i]).fetch_add(more[i]);
}

}  // namespace fattn::gpu::ptx
