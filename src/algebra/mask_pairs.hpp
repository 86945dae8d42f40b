// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "algebra/mask_band.hpp"

namespace fattn {

// How much of a tile of pairs a mask keeps. `some` may turn out to be none or all of them, the others are sure.
enum class Share { none, some, all };

FATTN_HD Share both_of(Share a, Share b) {
  if (a == Share::none || b == Share::none) return Share::none;
  return a == Share::all && b == Share::all ? Share::all : Share::some;
}

// One block-sparse table: for each row of blocks its entries, by ascending column. Layout: docs/numerics.md,
// "Block-sparse".
struct BlockTable {
  int block_q = 0;  // 0: there is no such mask
  int block_k = 0;
  const std::int32_t* offsets = nullptr;  // [rows of blocks + 1]
  const std::int32_t* columns = nullptr;  // [entries]
  const std::int64_t* bits = nullptr;     // [entries]: -1 full, else first bit of the block in mask
  const std::uint32_t* mask = nullptr;

  // The first entry of a row of blocks whose column is not below `column`.
  FATTN_HD std::int32_t find(int row, int column) const {
    std::int32_t begin = offsets[row], end = max_of(offsets[row + 1], begin);
    while (begin < end) {
      const std::int32_t middle = begin + (end - begin) / 2;
      if (columns[middle] < column) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin;
  }
  // Is there such an entry, and is it of this column?
  FATTN_HD bool holds(int row, std::int32_t entry, int column) const {
    return entry < offsets[row + 1] && columns[entry] == column;
  }
  FATTN_HD bool full(std::int32_t entry) const { return bits[entry] < 0; }
  // A pair of a partial block, counted from the block's first.
  FATTN_HD bool bit(std::int32_t entry, int query, int key) const {
    const std::int64_t n = bits[entry] + std::int64_t{query} * block_k + key;
    return (mask[n / 32] >> (n % 32) & 1u) != 0;
  }

  FATTN_HD bool keep(int query, int key) const {
    const int row = query / block_q, column = key / block_k;
    const std::int32_t entry = find(row, column);
    if (!holds(row, entry, column)) return false;
    return full(entry) || bit(entry, query - row * block_q, key - column * block_k);
  }
  FATTN_HD Share share(int query_begin, int query_end, int key_begin, int key_end) const {
    const int first = key_begin / block_k, last = (key_end - 1) / block_k;
    bool any = false, all = true;
    for (int row = query_begin / block_q; row <= (query_end - 1) / block_q; ++row) {
      int full_blocks = 0;
      for (std::int32_t entry = find(row, first); entry < offsets[row + 1] && columns[entry] <= last; ++entry) {
        any = true;
        full_blocks += full(entry) ? 1 : 0;
      }
      all = all && full_blocks == last - first + 1;
    }
    return any ? (all ? Share::all : Share::some) : Share::none;
  }
};

// The part of a Mask that is no interval of keys: documents and block-sparse tables, of one sequence and query head.
struct PairMask {
  const std::int32_t* document_q = nullptr;  // [seqlen_q]; null: no documents
  const std::int32_t* document_k = nullptr;  // [seqlen_k]
  BlockTable blocks;

  // A pair of the sequence's own queries and keys.
  FATTN_HD bool keep(int query, int key) const {
    if (document_q != nullptr && document_q[query] != document_k[key]) return false;
    return blocks.block_q == 0 || blocks.keep(query, key);
  }
  // Of the tile [query_begin, query_end) x [key_begin, key_end), not empty, within the lengths.
  FATTN_HD Share share(int query_begin, int query_end, int key_begin, int key_end) const {
    Share share = Share::all;
    if (document_q != nullptr) share = documents_share(query_begin, query_end, key_begin, key_end);
    if (blocks.block_q == 0 || share == Share::none) return share;
    return both_of(share, blocks.share(query_begin, query_end, key_begin, key_end));
  }

 private:
  // What a stretch of ids is known by: their range, and a set of 256 marks that each id sets one of.
  struct Ids {
    std::int32_t low, high;
    std::uint64_t marks[4];
  };
  FATTN_HD static Ids ids(const std::int32_t* document, int begin, int end) {
    Ids ids{document[begin], document[begin], {}};
    for (int i = begin; i < end; ++i) {
      ids.low = document[i] < ids.low ? document[i] : ids.low;
      ids.high = document[i] > ids.high ? document[i] : ids.high;
      if (i > begin && document[i] == document[i - 1]) continue;
      const std::uint32_t mark = static_cast<std::uint32_t>(document[i]) * 0x9E3779B9u >> 24;
      ids.marks[mark / 64] |= std::uint64_t{1} << mark % 64;
    }
    return ids;
  }
  // Ids come in any order: ranges that do not meet have none in common, nor have sets that do not.
  FATTN_HD Share documents_share(int query_begin, int query_end, int key_begin, int key_end) const {
    const Ids q = ids(document_q, query_begin, query_end), k = ids(document_k, key_begin, key_end);
    if (q.high < k.low || k.high < q.low) return Share::none;
    std::uint64_t common = 0;
    for (int i = 0; i < 4; ++i) common |= q.marks[i] & k.marks[i];
    if (common == 0) return Share::none;
    return q.low == q.high && k.low == k.high ? Share::all : Share::some;
  }
};

// All of that for one run: the arrays, and how to find a sequence's and head's part of them.
struct PairMasks {
  const std::int32_t* document_q = nullptr;  // [batch, seqlen_q] or [total_q]
  const std::int32_t* document_k = nullptr;
  BlockTable blocks;                // the first table
  std::int64_t table_rows = 0;      // offsets of one table: rows of blocks + 1
  std::int64_t table_of_batch = 0;  // tables from one sequence to the next; 0: one for all
  std::int64_t table_of_head = 0;

  FATTN_HD bool any() const { return document_q != nullptr || blocks.block_q > 0; }
  // first_q, first_k: where the sequence's rows begin in the arrays of documents.
  FATTN_HD PairMask of(std::int64_t batch, std::int64_t head, std::int64_t first_q, std::int64_t first_k) const {
    PairMask mask{document_q, document_k, blocks};
    if (document_q != nullptr) mask.document_q += first_q, mask.document_k += first_k;
    mask.blocks.offsets += (batch * table_of_batch + head * table_of_head) * table_rows;
    return mask;
  }
};

}  // namespace fattn
