// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "algebra/mask_band.hpp"
#include "cuda/common/varlen.hpp"
#include "fattn/device.hpp"

// What has to be done for sequences whose lengths only the device knows: their row tiles, those that walk most keys
// first. Made on the device before each run, so that a captured graph follows the lengths.
namespace fattn::gpu {

// One entry: a tile of rows of one sequence.
struct WorkTile {
  int sequence;
  int row;
};

// The same with the rows of its sequence, so that who takes the entry has one answer to wait for.
struct PlacedTile {
  WorkTile tile;
  SequenceRows q;
  SequenceRows k;
};

struct WorkListParams {
  VarlenLengths lengths;
  BandLimits mask;
  int rows_per_query;  // heads that lie side by side as rows
  int tile_rows;
  int tile_keys;
  int capacity;
  PlacedTile* tiles;  // null: no list is wanted
  int* count;
  float* max_logit;  // [heads], set to -inf, or null
  int heads;
};

// Most tiles that lengths inside the buffers can make.
std::int64_t work_list_capacity(const VarlenLengths& lengths, int rows_per_query, int tile_rows);

void load_work_list(const Device& device);
void make_work_list(const WorkListParams& params, cudaStream_t stream);

}  // namespace fattn::gpu
