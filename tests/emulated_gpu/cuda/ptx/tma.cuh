// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <cstring>

#include "emulated_gpu/copies.hpp"

// The same as src/cuda/ptx/tma.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

struct Box5 {
  int at[5];
};

inline emulated_gpu::Transfer box_transfer(emulated_gpu::Transfer::Kind kind, const CUtensorMap* map,
                                           std::uint32_t shared, const Box5& box) {
  emulated_gpu::Transfer transfer{.kind = kind, .shared = shared};
  std::memcpy(&transfer.map, map, sizeof transfer.map);
  std::memcpy(transfer.at, box.at, sizeof transfer.at);
  return transfer;
}

inline void tma_prefetch_map(const CUtensorMap*) {}
inline void tma_load(std::uint32_t to, const CUtensorMap* map, std::uint32_t barrier, const Box5& box) {
  emulated_gpu::Transfer transfer = box_transfer(emulated_gpu::Transfer::Kind::load_box, map, to, box);
  transfer.barrier = barrier;
  emulated_gpu::start_load(transfer);
}
inline void tma_store(const CUtensorMap* map, std::uint32_t from, const Box5& box) {
  emulated_gpu::add_store(box_transfer(emulated_gpu::Transfer::Kind::store_box, map, from, box));
}
inline void tma_store_commit() { emulated_gpu::commit_stores(); }
template <int groups>
void tma_store_wait_read() {
  emulated_gpu::wait_stores_read(groups);
}
template <int groups>
void tma_store_wait() {
  emulated_gpu::wait_stores_written(groups);
}

}  // namespace fattn::gpu::ptx
