// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <type_traits>

#include "cuda/common/varlen.hpp"
#include "cuda/common/work_list.hpp"
#include "cuda/sm90/backward_config.hpp"
#include "cuda/tile/mask.hpp"

namespace fattn::gpu::sm90 {

inline constexpr float kLog2e = 1.4426950408889634f;

// Scores are softmax_scale * (q.k), of any sign.
struct PlainScore {
  static constexpr bool kModified = false;
  float scale;
  float scale_log2;  // scale * log2(e)
};

// One runtime family: softcap, then ALiBi.
struct ShapedScore : PlainScore {
  static constexpr bool kModified = true;
  int modified;               // softcap or ALiBi: scores are changed first, and scale_log2 is 1
  float raw_log2;             // scale * log2(e)
  float cap_in;               // 2 log2(e) scale / softcap
  float cap_out;              // softcap * log2(e); 0: no softcap
  const float* slopes;        // [heads_q] or [batch, heads_q], or null
  std::int64_t slopes_batch;  // 0: per head
};

// Dense tensors [batch, seqlen, heads, head_dim] of any strides that the copy engine takes. The maps have dimensions
// (column, 1, row, head, batch), their boxes one slice of 64 columns; those of dK and dV 64 rows.
struct DenseTensors {
  static constexpr bool kVarlen = false;
  struct Place {};  // nothing to say of an item beside the item
  CUtensorMap q;
  CUtensorMap k;  // rows from first_key to the last key that some query sees: others read as zeros
  CUtensorMap v;
  CUtensorMap dout;
  CUtensorMap dk;  // all rows
  CUtensorMap dv;
  int first_key;
  int heads_per_kv;
  int seqlen_q;
  int seqlen_k;
};

// Sequences of any length, dense or packed. Boxes of the maps end where a sequence ends (encode_ragged).
struct VarlenTensors {
  static constexpr bool kVarlen = true;
  struct Place {
    SequenceRows q;
    SequenceRows k;
    int keys_begin;  // keys that some query of the sequence sees
    int keys_end;
  };
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
  CUtensorMap dout;
  CUtensorMap dk;
  CUtensorMap dv;
  VarlenLengths lengths;
  int slices;    // of 64 columns that hold some of Q and K; a box of these maps must not lie behind all columns
  int slices_v;  // of V and dO
  int heads_per_kv;
  int section_rows;  // queries of a key head, with gradients and sums, that the L2 cache keeps
  const WorkTile*
      tiles;  // tiles of packed keys, those of a sequence in a row; null: each has as many as the schedule says
  const int* tile_count;
};

// What the kernels before, in the middle and after hand on. Query tiles are padded to whole ones; packed sequences
// follow each other, each from a tile of its own (query_rows in backward_rows.hpp).
struct BackwardRows {
  float* lse;  // [batch or 1, heads_q, query_tiles, m], in powers of two, less `shift`; infinite: the row takes no part
  float* delta;  // [batch or 1, heads_q, query_tiles, m]: dLSE - rowsum(dO * O), the negative delta
  float* dq;     // [batch or 1, heads_q, query_tiles, parts, 64 x part columns in the order of accumulators], fp32
  int* turns;    // [batch or 1, heads_q, query_tiles, parts]: whose turn it is; null: nobody asks. Negative: nothing is
                 // added yet, and dq holds nothing. In turn: the key tile (as ~tile before the first), else 0: the
                 // first is being written, 1: it is
  int in_turn;   // key tiles add in their order
  int zeroed;    // dq holds zeros before the first addition
  int* ticket;   // [1]: items that have been taken
  int heads_q;
  int query_tiles;
  int shift;  // weight_shift() of the row
};

template <class Source, class Mask, class Score>
struct BackwardParams {
  Source source;
  Mask mask;
  Score score;
  BackwardSchedule schedule;
  BackwardRows rows;
};

// What one kernel is made of; rows derive a struct of their own name from it (see forward_params.hpp).
template <class Type, BackwardTile tile_, class Mask_, class Score_, class Source_>
struct BackwardTraits {
  using Element = typename Type::Element;
  using Mask = Mask_;
  using Score = Score_;
  using Source = Source_;
  using Params = BackwardParams<Source, Mask, Score>;
  static constexpr DType dtype = Type::dtype;
  static constexpr BackwardTile tile = Score::kModified ? modified_tile(dtype, tile_) : tile_;
  using Shared = std::conditional_t<tile.wide, BackwardWideShared<tile, typename Source::Place>,
                                    BackwardShared<tile, typename Source::Place>>;
  static_assert(tile_.m > 0, "backward_tile() in backward_config.hpp has no tile for this row of cmake/kernels.cmake");
  static_assert(check_backward_tile<tile, Shared>());
};

}  // namespace fattn::gpu::sm90
