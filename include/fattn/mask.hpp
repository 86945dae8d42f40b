// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "fattn/export.h"

namespace fattn {

// Block-sparse extents: the score matrix is cut into block_q x block_k blocks; Buffers say which are full, partial or
// absent. Zero block sizes: no block-sparse atom.
struct BlockSparse {
  std::int64_t block_q = 0;
  std::int64_t block_k = 0;
  bool per_batch = false;  // one table for each sequence of the batch, else one for all
  bool per_head = false;   // one table for each query head, else one for all
  explicit operator bool() const { return block_q > 0 || block_k > 0; }
  friend bool operator==(const BlockSparse&, const BlockSparse&) = default;
};

// Which (query, key) pairs take part: the intersection of the atoms below. Semantics: docs/numerics.md, "Masks".
// With diagonal = query + seqlen_k - seqlen_q (lengths of the sequence at hand), a pair is kept when
//   causal            key <= diagonal                       (bottom-right aligned)
//   causal_top_left   key <= query
//   window(l, r)      diagonal - l <= key <= diagonal + r   (-1: that side is unbounded)
//   chunk(c)          floor(diagonal / c) == floor(key / c)
//   documents         document_q[query] == document_k[key]
//   prefix            key < prefix[batch] or key <= diagonal
//   block_sparse      the pair's block is full, or partial with the pair's bit set
struct Mask {
  bool causal = false;
  bool causal_top_left = false;
  std::int64_t window_left = -1;
  std::int64_t window_right = -1;
  std::int64_t chunk = 0;  // 0: none
  bool documents = false;
  bool prefix = false;
  BlockSparse block_sparse = {};
  friend bool operator==(const Mask&, const Mask&) = default;
};

inline Mask full() { return {}; }
inline Mask causal() { return {.causal = true}; }
inline Mask causal_top_left() { return {.causal_top_left = true}; }
inline Mask window(std::int64_t left, std::int64_t right) { return {.window_left = left, .window_right = right}; }
inline Mask chunk(std::int64_t size) { return {.chunk = size}; }
inline Mask documents() { return {.documents = true}; }
inline Mask prefix() { return {.prefix = true}; }
inline Mask block_sparse(BlockSparse blocks) { return {.block_sparse = blocks}; }

// (a & b) keeps a pair exactly when a and b both keep it. Throws Error(invalid_argument) for two different chunk sizes
// or two different block-sparse grids, which have no single Mask.
FATTN_EXPORT Mask operator&(const Mask& a, const Mask& b);

}  // namespace fattn
