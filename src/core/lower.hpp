// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "algebra/descale.hpp"
#include "algebra/mask_band.hpp"
#include "algebra/mask_pairs.hpp"
#include "fattn/attention.hpp"

namespace fattn {

// True when the mask is one interval of keys per query that needs no data, that is, when lower_band() says all of it.
inline bool is_band(const Mask& mask) { return !mask.documents && !mask.prefix && !mask.block_sparse; }

// The Band part of a valid Mask; atoms that are not Bands are left out. Limits beyond every length become kUnbounded.
inline BandLimits lower_band(const Mask& mask) {
  const auto limit = [](std::int64_t keys) {
    return keys < 0 ? kUnbounded : static_cast<int>(std::min<std::int64_t>(keys, kUnbounded));
  };
  BandLimits limits;
  limits.left = limit(mask.window_left);
  limits.right = mask.causal ? 0 : limit(mask.window_right);
  limits.chunk = limit(mask.chunk);
  limits.top_left = mask.causal_top_left;
  limits.prefix = mask.prefix;
  return limits;
}

// The rest of it, with the arrays of one run.
inline PairMasks lower_pairs(const Problem& problem, const Buffers& buffers) {
  PairMasks masks;
  if (problem.mask.documents) masks.document_q = buffers.document_q, masks.document_k = buffers.document_k;
  const BlockSparse& blocks = problem.mask.block_sparse;
  if (!blocks) return masks;
  masks.blocks = {static_cast<int>(blocks.block_q),
                  static_cast<int>(blocks.block_k),
                  buffers.block_offsets,
                  buffers.block_columns,
                  buffers.block_bits,
                  buffers.block_mask};
  masks.table_rows = (problem.seqlen_q + blocks.block_q - 1) / blocks.block_q + 1;
  masks.table_of_head = blocks.per_head ? 1 : 0;
  masks.table_of_batch = blocks.per_batch ? (blocks.per_head ? problem.heads_q : 1) : 0;
  return masks;
}

// Of q, k or v.
inline Descales lower_descale(const Problem& problem, const Buffers& buffers, Operand operand) {
  if (problem.descale.kind == DescaleKind::none) return {};
  const bool query = operand == Operand::q;
  Descales factors{query ? buffers.q_descale : operand == Operand::k ? buffers.k_descale : buffers.v_descale};
  if (problem.descale.kind == DescaleKind::tensor) return factors;
  const std::int64_t heads = query ? problem.heads_q : problem.heads_kv;
  factors.head_stride = 1;
  if (problem.descale.kind == DescaleKind::block) {
    const std::int64_t block = query ? problem.descale.block_q : problem.descale.block_k;
    factors.block = static_cast<int>(block);
    factors.head_stride = ((query ? problem.seqlen_q : problem.seqlen_k) + block - 1) / block;
  }
  factors.batch_stride = heads * factors.head_stride;
  return factors;
}

}  // namespace fattn
