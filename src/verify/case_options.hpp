// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "fattn/problem.hpp"

namespace fattn::verify {

// Where one sequence of the batch lies: its lengths, and its first rows in arrays by row.
struct SequenceRows {
  std::int64_t length_q, length_k;
  std::int64_t first_q, first_k;
};

// What masks and dropout read beside tensors, as Buffers say it. Empty where the problem has no such option.
struct OptionArrays {
  std::vector<std::int32_t> document_q, document_k, prefix;
  std::vector<std::int32_t> block_offsets, block_columns;
  std::vector<std::int64_t> block_bits;
  std::vector<std::uint32_t> block_mask;
  std::vector<std::uint64_t> dropout_seed, dropout_offset;
};

OptionArrays draw_options(const Problem& problem, std::uint64_t seed, const std::vector<SequenceRows>& sequences);

// Is the pair of queries and keys of a sequence kept by the mask? Written from the text of docs/numerics.md, "Masks",
// not from the code under test.
bool keeps(const Problem& problem, const OptionArrays& arrays, const SequenceRows& sequence, std::int64_t batch,
           std::int64_t head, std::int64_t query, std::int64_t key);

}  // namespace fattn::verify
