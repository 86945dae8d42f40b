// SPDX-License-Identifier: Apache-2.0
#include "verify/case_options.hpp"

#include <algorithm>
#include <cmath>

#include "verify/random.hpp"

namespace fattn::verify {
namespace {

using std::int64_t;

// Documents of any length; now and then ids come in any order, and some queries have no key at all.
void draw_documents(OptionArrays& arrays, const Problem& problem, std::uint64_t seed,
                    const std::vector<SequenceRows>& sequences) {
  const auto rows = [](const std::optional<int64_t>& total, int64_t batch, int64_t longest) {
    return static_cast<std::size_t>(total ? *total : batch * longest);
  };
  // Rows past the lengths have the id of a document that exists: reading them shows.
  arrays.document_q.assign(rows(problem.total_q, problem.batch, problem.seqlen_q), 7);
  arrays.document_k.assign(rows(problem.total_k, problem.batch, problem.seqlen_k), 7);
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const SequenceRows& s = sequences[b];
    Random random(seed_of(seed, "documents", static_cast<int64_t>(b)));
    const int64_t longest = std::max(s.length_q, s.length_k), most = std::max<int64_t>(1, longest / 2);
    const bool any_order = random.between(0, 3) == 0;
    std::vector<std::int32_t> ids;
    while (static_cast<int64_t>(ids.size()) < longest) {
      const auto id =
          static_cast<std::int32_t>(any_order ? random.between(-1, 7) : 7 + static_cast<int64_t>(ids.size()));
      ids.insert(ids.end(), static_cast<std::size_t>(random.between(1, any_order ? 3 : most)), id);
    }
    for (int64_t j = 0; j < s.length_k; ++j) {
      arrays.document_k[static_cast<std::size_t>(s.first_k + j)] = ids[static_cast<std::size_t>(j)];
    }
    for (int64_t i = 0; i < s.length_q; ++i) {
      const int64_t diagonal = i + s.length_k - s.length_q;
      arrays.document_q[static_cast<std::size_t>(s.first_q + i)] =
          diagonal >= 0 ? ids[static_cast<std::size_t>(diagonal)] : -1000000;
    }
  }
}

// Half of the blocks absent, the others full or partial; whole rows of blocks may be absent.
void draw_blocks(OptionArrays& arrays, const Problem& problem, std::uint64_t seed) {
  const BlockSparse& blocks = problem.mask.block_sparse;
  const int64_t tables = (blocks.per_batch ? problem.batch : 1) * (blocks.per_head ? problem.heads_q : 1);
  const int64_t rows = (problem.seqlen_q + blocks.block_q - 1) / blocks.block_q;
  const int64_t columns = (problem.seqlen_k + blocks.block_k - 1) / blocks.block_k;
  Random random(seed_of(seed, "blocks"));
  int64_t bits = 0;
  for (int64_t table = 0; table < tables; ++table) {
    arrays.block_offsets.push_back(static_cast<std::int32_t>(arrays.block_columns.size()));
    for (int64_t row = 0; row < rows; ++row) {
      const bool absent = random.between(0, 7) == 0;
      for (int64_t column = 0; column < columns && !absent; ++column) {
        const int64_t kind = random.between(0, 3);
        if (kind < 2) continue;
        arrays.block_columns.push_back(static_cast<std::int32_t>(column));
        arrays.block_bits.push_back(kind == 2 ? -1 : bits);
        if (kind == 3) bits += blocks.block_q * blocks.block_k;
      }
      arrays.block_offsets.push_back(static_cast<std::int32_t>(arrays.block_columns.size()));
    }
  }
  for (int64_t word = 0; word * 32 < bits || word == 0; ++word) {
    arrays.block_mask.push_back(static_cast<std::uint32_t>(random.next()));
  }
  // Entries that no row has: reading them shows.
  arrays.block_columns.push_back(0);
  arrays.block_bits.push_back(-1);
}

}  // namespace

OptionArrays draw_options(const Problem& problem, std::uint64_t seed, const std::vector<SequenceRows>& sequences) {
  OptionArrays arrays;
  if (problem.mask.documents) draw_documents(arrays, problem, seed, sequences);
  if (problem.mask.prefix) {
    for (std::size_t b = 0; b < sequences.size(); ++b) {
      Random random(seed_of(seed, "prefix", static_cast<int64_t>(b)));
      // Also none, all, and numbers beyond both ends.
      const int64_t drawn = random.between(0, sequences[b].length_k), kind = random.between(0, 7);
      arrays.prefix.push_back(static_cast<std::int32_t>(kind == 0 ? -3 : kind == 1 ? 1 << 30 : drawn));
    }
  }
  if (problem.mask.block_sparse) draw_blocks(arrays, problem, seed);
  if (problem.dropout > 0) {
    Random random(seed_of(seed, "dropout"));
    arrays.dropout_seed.push_back(random.next());
    arrays.dropout_offset.push_back(random.next());
  }
  return arrays;
}

bool keeps(const Problem& problem, const OptionArrays& arrays, const SequenceRows& s, int64_t batch, int64_t head,
           int64_t query, int64_t key) {
  const Mask& mask = problem.mask;
  const int64_t diagonal = query + s.length_k - s.length_q;
  if (mask.causal && key > diagonal) return false;
  if (mask.causal_top_left && key > query) return false;
  if (mask.window_left >= 0 && key < diagonal - mask.window_left) return false;
  if (mask.window_right >= 0 && key > diagonal + mask.window_right) return false;
  if (mask.chunk > 0) {
    const auto chunk_of = [&](int64_t n) {
      return std::floor(static_cast<double>(n) / static_cast<double>(mask.chunk));
    };
    if (chunk_of(diagonal) != chunk_of(key)) return false;
  }
  if (mask.documents && arrays.document_q[static_cast<std::size_t>(s.first_q + query)] !=
                            arrays.document_k[static_cast<std::size_t>(s.first_k + key)]) {
    return false;
  }
  if (mask.prefix && key >= arrays.prefix[static_cast<std::size_t>(batch)] && key > diagonal) return false;
  const BlockSparse& blocks = mask.block_sparse;
  if (!blocks) return true;
  const int64_t rows = (problem.seqlen_q + blocks.block_q - 1) / blocks.block_q;
  int64_t table = 0;
  if (blocks.per_batch) table = blocks.per_head ? batch * problem.heads_q : batch;
  if (blocks.per_head) table += head;
  const auto row = static_cast<std::size_t>(table * (rows + 1) + query / blocks.block_q);
  for (auto entry = static_cast<std::size_t>(arrays.block_offsets[row]);
       entry < static_cast<std::size_t>(arrays.block_offsets[row + 1]); ++entry) {
    if (arrays.block_columns[entry] != key / blocks.block_k) continue;
    if (arrays.block_bits[entry] == -1) return true;
    const int64_t bit = arrays.block_bits[entry] + query % blocks.block_q * blocks.block_k + key % blocks.block_k;
    return (arrays.block_mask[static_cast<std::size_t>(bit / 32)] >> (bit % 32)) % 2 == 1;
  }
  return false;
}

}  // namespace fattn::verify
