// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/common/varlen.hpp"
#include "cuda/common/work_list.hpp"

// What a backward pass has to know of packed sequences before it starts, found on the device.
namespace fattn::gpu {

struct KeyListParams {
  VarlenLengths lengths;
  // Copies of cu_seqlens [batch + 1] inside the buffers and never falling, whatever is given, so that no two sequences
  // share rows; null where the side is not packed.
  std::int32_t* cu_seqlens_q;
  std::int32_t* cu_seqlens_k;
  // Tiles of packed keys, those of a sequence in a row and in order, the sequences with most queries first. Rows behind
  // the last sequence belong to sequence `batch`. Null: no list is wanted.
  WorkTile* tiles;
  int* count;
  int tile_keys;
  int capacity;
};

// Most tiles of packed keys.
std::int64_t key_list_capacity(const VarlenLengths& lengths, int tile_keys);

void load_key_list(const Device& device);
void make_key_list(const KeyListParams& params, cudaStream_t stream);

}  // namespace fattn::gpu
