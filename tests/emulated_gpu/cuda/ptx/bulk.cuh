// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "emulated_gpu/copies.hpp"

// The same as src/cuda/ptx/bulk.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

inline void bulk_load(std::uint32_t to, const void* from, int bytes, std::uint32_t barrier) {
  emulated_gpu::start_load({.kind = emulated_gpu::Transfer::Kind::load_bytes,
                            .shared = to,
                            .global = static_cast<unsigned char*>(const_cast<void*>(from)),
                            .bytes = static_cast<std::uint32_t>(bytes),
                            .barrier = barrier});
}
inline void bulk_store(void* to, std::uint32_t from, int bytes) {
  emulated_gpu::add_store({.kind = emulated_gpu::Transfer::Kind::store_bytes,
                           .shared = from,
                           .global = static_cast<unsigned char*>(to),
                           .bytes = static_cast<std::uint32_t>(bytes)});
}
inline void bulk_add(float* to, std::uint32_t from, int bytes) {
  emulated_gpu::add_store({.kind = emulated_gpu::Transfer::Kind::add_floats,
                           .shared = from,
                           .global = reinterpret_cast<unsigned char*>(to),
                           .bytes = static_cast<std::uint32_t>(bytes)});
}

}  // namespace fattn::gpu::ptx
