// SPDX-License-Identifier: Apache-2.0
#include "fattn/mask.hpp"

#include <algorithm>

#include "core/message.hpp"

namespace fattn {
namespace {

// -1 is unbounded, so it gives way to any limit.
std::int64_t narrower(std::int64_t a, std::int64_t b) {
  if (a < 0) return b;
  return b < 0 ? a : std::min(a, b);
}

std::int64_t common_chunk(std::int64_t a, std::int64_t b) {
  if (a == 0 || b == 0 || a == b) return std::max(a, b);
  fail(Status::invalid_argument, "chunk = {} joined with chunk = {} is not one chunk mask; nearest: chunk = {}", a, b,
       std::min(a, b));
}

BlockSparse common_blocks(const BlockSparse& a, const BlockSparse& b) {
  if (!a || !b || a == b) return a ? a : b;
  fail(Status::invalid_argument,
       "block_sparse({}x{}{}{}) & block_sparse({}x{}{}{}) is not one block-sparse mask; nearest: intersect the tables",
       a.block_q, a.block_k, a.per_batch ? ", per batch" : "", a.per_head ? ", per head" : "", b.block_q, b.block_k,
       b.per_batch ? ", per batch" : "", b.per_head ? ", per head" : "");
}

}  // namespace

Mask operator&(const Mask& a, const Mask& b) {
  return {
      .causal = a.causal || b.causal,
      .causal_top_left = a.causal_top_left || b.causal_top_left,
      .window_left = narrower(a.window_left, b.window_left),
      .window_right = narrower(a.window_right, b.window_right),
      .chunk = common_chunk(a.chunk, b.chunk),
      .documents = a.documents || b.documents,
      .prefix = a.prefix || b.prefix,
      .block_sparse = common_blocks(a.block_sparse, b.block_sparse),
  };
}

}  // namespace fattn
