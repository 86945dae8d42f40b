// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "fattn/problem.hpp"

namespace fattn {

// The block-sparse tables of Buffers, readable on the host (docs/numerics.md, "Block-sparse").
struct HostBlocks {
  const std::int32_t* offsets = nullptr;
  const std::int32_t* columns = nullptr;
  const std::int64_t* bits = nullptr;
  bool has_mask = false;  // block_mask is given
};

// How many offsets all tables of a block-sparse problem have together.
std::int64_t count_of_block_offsets(const Problem& problem);

// Both throw Error(invalid_argument) naming the first wrong entry, and allocate only to throw.
// Returns how many entries the offsets speak of. Columns and bits may be read that far once the offsets are right.
std::int64_t check_block_offsets(const Problem& problem, const std::int32_t* offsets);
void check_blocks(const Problem& problem, const HostBlocks& blocks);

}  // namespace fattn
