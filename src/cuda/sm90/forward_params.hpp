// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/common/varlen.hpp"
#include "cuda/common/work_list.hpp"
#include "cuda/sm90/forward_config.hpp"
#include "cuda/tile/mask.hpp"

namespace fattn::gpu::sm90 {

// Scores are softmax_scale * (q.k). The kernel multiplies by a positive factor; a negative or zero scale is put into
// the queries' bits, which is exact.
struct IdentityScore {
  static constexpr bool kModified = false;
  float scale_log2;         // |softmax_scale| * log2(e), or 1 when softmax_scale is 0
  int change_queries;       // 0: the queries stay as they are
  std::uint32_t query_and;  // on pairs of 16-bit queries
  std::uint32_t query_xor;
  std::uint32_t zero;  // 0, which the compiler does not know
};

// One runtime family: softcap, then ALiBi, and the largest score before them (docs/numerics.md, "Scores").
struct ModifiedScore : IdentityScore {
  static constexpr bool kModified = true;
  int modified;               // softcap or ALiBi: scores are changed first, and scale_log2 is 1
  float raw_scale;            // |softmax_scale|
  float raw_log2;             // the same * log2(e)
  float cap_in;               // 2 log2(e) |softmax_scale| / softcap; 0: no softcap
  float cap_out;              // softcap * log2(e)
  const float* slopes;        // [heads] or [batch, heads], or null
  std::int64_t slopes_batch;  // 0: per head
  float* max_logit;           // [heads] or null
};

// Dense tensors [batch, seqlen, heads, head_dim] of any strides that the copy engine takes. Dimensions of the maps:
// tensor_map.hpp.
struct DenseSource {
  struct Place {};  // nothing that the loader has to tell beside the item
  static constexpr bool kVarlen = false;
  CUtensorMap q;
  CUtensorMap k;  // rows from first_key to the last key that some query sees: others read as zeros
  CUtensorMap v;
  CUtensorMap o;
  int slices;  // the maps of q, k and v are of slices, and a tile is one box
  int first_key;
  int heads_per_kv;
  int seqlen_q;
  int seqlen_k;
};

// Sequences of any length, dense or packed. `group` query heads that share keys may lie side by side as rows, and the
// keys of an item may be split over several blocks, whose parts the merge kernel joins.
struct VarlenSource {
  static constexpr bool kVarlen = true;
  struct Place {
    SequenceRows q;
    SequenceRows k;
    int keys_begin;  // keys that some query of the sequence sees; values outside are read as zeros
    int keys_end;
    int split;
  };
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
  CUtensorMap o;  // packed: a box can end after any of its positions (encode_ragged)
  int slices;     // the maps of k and v are of slices, and a tile is one box
  VarlenLengths lengths;
  int group_log2;    // heads side by side: a power of two
  int heads_per_kv;  // of groups
  int splits;
  int row_tiles;            // of a sequence, where there is no list
  const PlacedTile* tiles;  // null: each sequence has row_tiles
  const int* tile_count;
  float* partial_o;    // [splits][rows of lse][head_dim_v], where splits > 1
  float* partial_lse;  // [splits][rows of lse]
  std::int64_t partial_rows;
};

// Where rows that do not leave through the copy engine go. Strides in elements.
struct RowsOut {
  void* data;
  std::int64_t batch;
  std::int64_t row;
  std::int64_t head;
  int columns;
};

template <class Mask, class Score, class Source>
struct ForwardParams {
  Source source;
  Mask mask;
  Score score;
  Schedule schedule;
  // [2] for a queue: items handed out beyond each block's first, blocks that are done; zero between runs
  int* counters;
  RowsOut o;
  float* lse;  // or null
  RowLayout lse_layout;
  const float* sinks;  // [heads] or null
};

// What one kernel is made of. Rows derive a struct of their own name from it, and that struct is the template parameter
// of the kernel: nvcc 13.0 misprints structural values of namespaced types in its host stubs.
template <class Type, ForwardTile tile_, class Mask_, class Score_, class Source_>
struct ForwardTraits {
  using Element = typename Type::Element;
  using Mask = Mask_;
  using Score = Score_;
  using Source = Source_;
  using Params = ForwardParams<Mask, Score, Source>;
  static constexpr DType dtype = Type::dtype;
  static constexpr ForwardTile tile = Source::kVarlen ? varlen_tile(tile_, Score::kModified) : tile_;
  using Shared = ForwardShared<tile, typename Source::Place>;
  static_assert(tile_.m > 0, "forward_tile() in forward_config.hpp has no tile for this row of cmake/kernels.cmake");
  static_assert(check_forward_tile<tile, Shared>());
};

}  // namespace fattn::gpu::sm90
