// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/sm90/forward_config.hpp"
#include "cuda/tile/mask.hpp"

namespace fattn::gpu::sm90 {

// Scores are softmax_scale * (q.k). The kernel multiplies by a positive factor; a negative or zero scale is put into
// the queries' bits, which is exact.
struct IdentityScore {
  float scale_log2;         // |softmax_scale| * log2(e), or 1 when softmax_scale is 0
  int change_queries;       // 0: the queries stay as they are
  std::uint32_t query_and;  // on pairs of 16-bit queries
  std::uint32_t query_xor;
};

// Dense tensors [batch, seqlen, heads, head_dim] of any strides that the copy engine takes. The maps have dimensions
// (64 columns, row, slice of columns, head, batch).
struct DenseSource {
  CUtensorMap q;
  CUtensorMap k;  // rows from first_key to the last key that some query sees: others read as zeros
  CUtensorMap v;
  CUtensorMap o;
  int first_key;
  int heads_per_kv;
  int seqlen_q;
  int seqlen_k;
};

template <class Mask, class Score, class Source>
struct ForwardParams {
  Source source;
  Mask mask;
  Score score;
  Schedule schedule;
  int*
      counters;  // [2] for a queue: items handed out beyond each block's first, blocks that are done; zero between runs
  float* lse;    // [batch, heads, seqlen_q] or null
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
  using Shared = ForwardShared<tile_>;
  static constexpr DType dtype = Type::dtype;
  static constexpr ForwardTile tile = tile_;
  static_assert(tile_.m > 0, "forward_tile() in forward_config.hpp has no tile for this row of cmake/kernels.cmake");
  static_assert(check_forward_tile<tile_>());
};

}  // namespace fattn::gpu::sm90
