// SPDX-License-Identifier: Apache-2.0
#include "core/blocks.hpp"

#include <algorithm>

#include "core/message.hpp"

namespace fattn {
namespace {

using std::int64_t;

int64_t blocks_in(int64_t length, int64_t block) { return (length + block - 1) / block; }

struct Tables {
  explicit Tables(const Problem& problem)
      : count((problem.mask.block_sparse.per_batch ? problem.batch : 1) *
              (problem.mask.block_sparse.per_head ? problem.heads_q : 1)),
        rows(blocks_in(problem.seqlen_q, problem.mask.block_sparse.block_q)),
        columns(blocks_in(problem.seqlen_k, problem.mask.block_sparse.block_k)) {}
  int64_t count, rows, columns;  // rows and columns of blocks
};

}  // namespace

int64_t count_of_block_offsets(const Problem& problem) {
  const Tables tables(problem);
  return tables.count * (tables.rows + 1);
}

int64_t check_block_offsets(const Problem& problem, const std::int32_t* offsets) {
  const Tables tables(problem);
  int64_t entries = 0;  // of the tables so far: tables may share entries, so the next one begins at or before the end
  for (int64_t table = 0; table < tables.count; ++table) {
    const int64_t first = table * (tables.rows + 1);
    int64_t begin = offsets[first];
    require(begin >= 0 && begin <= entries,
            "block_offsets[{}] = {} begins a table outside of the {} entries before it; nearest: {}", first, begin,
            entries, std::clamp<int64_t>(begin, 0, entries));
    for (int64_t i = first + 1; i <= first + tables.rows; ++i) {
      const int64_t end = offsets[i];
      require(end >= begin, "block_offsets[{}] = {} is below block_offsets[{}] = {}; nearest: {}", i, end, i - 1, begin,
              begin);
      require(end - begin <= tables.columns,
              "block_offsets[{}] = {} gives a row of blocks {} entries and it has {} blocks; nearest: {}", i, end,
              end - begin, tables.columns, begin + tables.columns);
      begin = end;
    }
    entries = std::max(entries, begin);
  }
  return entries;
}

void check_blocks(const Problem& problem, const HostBlocks& blocks) {
  check_block_offsets(problem, blocks.offsets);
  const Tables tables(problem);
  for (int64_t table = 0; table < tables.count; ++table) {
    const std::int32_t* const offsets = blocks.offsets + table * (tables.rows + 1);
    for (int64_t row = 0; row < tables.rows; ++row) {
      int64_t before = -1;
      for (int64_t entry = offsets[row]; entry < offsets[row + 1]; ++entry) {
        const int64_t column = blocks.columns[entry], bit = blocks.bits[entry];
        require(column >= 0 && column < tables.columns,
                "block_columns[{}] = {} is outside of the {} blocks of a row; nearest: {}", entry, column,
                tables.columns, std::clamp<int64_t>(column, 0, tables.columns - 1));
        require(column > before, "block_columns[{}] = {} does not come after block_columns[{}] = {}; nearest: {}",
                entry, column, entry - 1, before, before + 1);
        require(bit >= -1, "block_bits[{}] = {} is neither -1 (full) nor the index of a bit; nearest: -1", entry, bit);
        require(bit < 0 || blocks.has_mask,
                "block_bits[{}] = {} is a bit of block_mask, which is null; nearest: -1 (full)", entry, bit);
        before = column;
      }
    }
  }
}

}  // namespace fattn
