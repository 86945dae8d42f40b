// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "core/kernel.hpp"
#include "cuda/sm90/forward_params.hpp"
#include "cuda/sm90/plan_parts.hpp"

// The host's half of the forward rows that does not depend on template parameters. It runs on machines without a GPU.
namespace fattn::gpu::sm90 {

// What a compiled row is for.
struct ForwardRow {
  DType dtype;
  ForwardTile tile;
  std::size_t shared_bytes;
  bool modified;  // ModifiedScore, else IdentityScore
  bool varlen;    // VarlenSource, else DenseSource
};

// A split walks at least so many keys: fewer cost more to merge than they save.
inline constexpr int kSplitKeys = 512;

// Items of unequal length that are taken together, the longest first: so many where an item has 128 rows, in proportion
// where it has more, of at most so many heads. Fewer leave
// blocks without work between sections (causal at d 256 and 16k keys: 1.18 of cuDNN with 256 items, 1.23 with 512; d 64
// at 16k keys 1.21 with 430 items, 1.28 with 688); more heads read more keys at a time than the L2 cache holds, or all
// of them at once (causal at d 128 and 512 keys: 1.01 with 128 heads, 1.10 with 32; at 1k 1.15 with 64, 1.17 with 32).
inline constexpr int kSectionItems = 512, kSectionHeads = 32;

// What run() wants precomputed.
struct ForwardPlan {
  BandLimits limits;
  ModifiedScore score;
  Schedule schedule;
  int keys_begin;  // keys that some query sees; none: begin == end
  int keys_end;
  DenseSource source;  // its maps of no data yet, and none where the device is only described
};

std::string decline_forward(const ForwardRow& row, const Problem& problem, const Device& device);
ForwardPlan plan_forward(const ForwardRow& row, const Problem& problem);
Launch launch_forward(const ForwardRow& row, const Problem& problem, const Device& device);

// Pieces that both sources need.
// Whether the copy engine's boxes are whole tiles: a part of a slice it fills with zeros only slice by slice.
bool loads_whole_tiles(const Problem& problem);
// The map of an operand for boxes of `box_rows` rows and, where `whole`, of all `columns` of the tile.
CUtensorMap encode_tile(const void* data, DType dtype, const TensorShape& tensor, int box_rows, int columns,
                        bool whole);
// How many query heads that share keys lie side by side as rows of one tile: all of a group where that saves at least
// half of the tiles, else one. Not where a row's bits must not depend on its neighbours in a tile.
int heads_side_by_side(const ForwardRow& row, const Problem& problem);
ModifiedScore modified_score(const Problem& problem);
RowLayout lse_layout(const Problem& problem);
RowsOut rows_out(const Problem& problem, void* data);

// The source of every run of a plan, and that of one.
DenseSource dense_source(const ForwardRow& row, const Problem& problem, const ForwardPlan& plan);
DenseSource dense_source(const Problem& problem, const ForwardPlan& plan, const Buffers& buffers);

}  // namespace fattn::gpu::sm90
