// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector_types.h>

#include <cstdint>
#include <cstring>

#include "emulated_gpu/block.hpp"

// The same as src/cuda/ptx/shared.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

template <class Value>
Value load_shared_as(std::uint32_t from) {
  if (from % sizeof(Value) != 0) emulated_gpu::fail("a load from %u: not a multiple of its size", from);
  Value value;
  std::memcpy(&value, emulated_gpu::shared_memory(from, sizeof value), sizeof value);
  return value;
}
template <class Value>
void store_shared_as(std::uint32_t to, const Value& value) {
  if (to % sizeof(Value) != 0) emulated_gpu::fail("a store to %u: not a multiple of its size", to);
  std::memcpy(emulated_gpu::shared_memory(to, sizeof value), &value, sizeof value);
  emulated_gpu::wrote_shared(to, sizeof value);
}

inline std::uint32_t load_shared(std::uint32_t from) { return load_shared_as<std::uint32_t>(from); }
inline float2 load_shared_2(std::uint32_t from) { return load_shared_as<float2>(from); }
inline void store_shared_4(std::uint32_t to, float a, float b, float c, float d) {
  store_shared_as(to, float4{a, b, c, d});
}
inline void store_shared(std::uint32_t to, std::uint32_t value) { store_shared_as(to, value); }
inline void store_shared_release(std::uint32_t to, std::uint32_t value) { store_shared_as(to, value); }
inline std::uint32_t load_shared_acquire(std::uint32_t from) { return load_shared(from); }
inline void pause() { emulated_gpu::spin(); }
inline void clear_shared_16(std::uint32_t to) { store_shared_as(to, float4{}); }

}  // namespace fattn::gpu::ptx
