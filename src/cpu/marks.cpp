// SPDX-License-Identifier: Apache-2.0
#include "cpu/marks.hpp"

#include <algorithm>

namespace fattn::host {
namespace {

// mark(row, key) for each pair of the tile, the direction that is contiguous in memory inside.
template <class Mark>
void for_each_pair(const MarkedTile& tile, Mark mark) {
  if (tile.row_step == 1) {
    for (int j = 0; j < tile.keys; ++j) {
      for (int i = 0; i < tile.rows; ++i) mark(i, j, tile.marks[j * tile.key_step + i]);
    }
  } else {
    for (int i = 0; i < tile.rows; ++i) {
      for (int j = 0; j < tile.keys; ++j) mark(i, j, tile.marks[i * tile.row_step + j]);
    }
  }
}

// The part of the tile that lies in rows [row, row_end) x keys [key, key_end) of the sequence.
MarkedTile part_of(const MarkedTile& tile, int row, int row_end, int key, int key_end) {
  MarkedTile part = tile;
  part.query = std::max(row, tile.query);
  part.key = std::max(key, tile.key);
  part.rows = std::min(row_end, tile.query + tile.rows) - part.query;
  part.keys = std::min(key_end, tile.key + tile.keys) - part.key;
  part.marks += (part.query - tile.query) * tile.row_step + (part.key - tile.key) * tile.key_step;
  return part;
}

void mark_documents(const PairMask& mask, const MarkedTile& tile) {
  const std::int32_t *const q = mask.document_q + tile.query, *const k = mask.document_k + tile.key;
  for_each_pair(tile, [=](int i, int j, int& mark) { mark = q[i] == k[j] ? kKept : kUnseen; });
}

void mark_blocks(const BlockTable& table, const MarkedTile& tile) {
  const int first = tile.key / table.block_k, last = (tile.key + tile.keys - 1) / table.block_k;
  for (int row = tile.query / table.block_q; row <= (tile.query + tile.rows - 1) / table.block_q; ++row) {
    std::int32_t entry = table.find(row, first);
    for (int column = first; column <= last; ++column) {
      const bool present = table.holds(row, entry, column);
      if (present && table.full(entry++)) continue;
      const int query = row * table.block_q, key = column * table.block_k;
      // The last blocks may end beyond what an int holds.
      const int row_end = static_cast<int>(std::min<std::int64_t>(std::int64_t{query} + table.block_q, kUnbounded));
      const int key_end = static_cast<int>(std::min<std::int64_t>(std::int64_t{key} + table.block_k, kUnbounded));
      const MarkedTile part = part_of(tile, query, row_end, key, key_end);
      if (!present) {
        for_each_pair(part, [](int, int, int& mark) { mark = kUnseen; });
      } else {
        for_each_pair(part, [&](int i, int j, int& mark) {
          if (!table.bit(entry - 1, part.query - query + i, part.key - key + j)) mark = kUnseen;
        });
      }
    }
  }
}

// One call of Philox serves four pairs, {i, i + 8} x {j, j + 8}.
void mark_dropped(const Marker& marker, const MarkedTile& tile) {
  const int row_end = tile.query + tile.rows, key_end = tile.key + tile.keys;
  const auto drop = [&](int query, int key, std::uint32_t word) {
    if (word >= marker.threshold || query < tile.query || query >= row_end || key < tile.key || key >= key_end) return;
    int& mark = tile.marks[(query - tile.query) * tile.row_step + (key - tile.key) * tile.key_step];
    mark = std::min<int>(mark, kDropped);
  };
  for (int query = tile.query / 16 * 16; query < row_end; query += (query % 16 == 7 ? 9 : 1)) {
    for (int key = tile.key / 16 * 16; key < key_end; key += (key % 16 == 7 ? 9 : 1)) {
      const PhiloxWords words = marker.words.four(query, key);
      for (int n = 0; n < 4; ++n) drop(query + n / 2 * 8, key + n % 2 * 8, words.word[n]);
    }
  }
}

}  // namespace

void mark_tile(const Marker& marker, Share share, const MarkedTile& tile) {
  // Also what lies beyond the tile's rows and keys, which vectors read.
  std::fill_n(tile.marks, tile.capacity, static_cast<int>(kKept));
  if (share == Share::some && marker.mask.document_q != nullptr) mark_documents(marker.mask, tile);
  if (share == Share::some && marker.mask.blocks.block_q > 0) mark_blocks(marker.mask.blocks, tile);
  if (marker.drops) mark_dropped(marker, tile);
}

void look_at_marks(const Band& band, const MarkedTile& tile, bool* seen_keys, bool* seen_rows) {
  for (int i = 0; i < tile.rows; ++i) {
    const Interval visible = band.visible(tile.query + i);
    bool any = false;
    for (int j = max_of(0, visible.begin - tile.key); j < min_of(tile.keys, visible.end - tile.key); ++j) {
      const bool seen = tile.marks[i * tile.row_step + j * tile.key_step] != kUnseen;
      any = any || seen;
      if (seen_keys != nullptr) seen_keys[j] = seen_keys[j] || seen;
    }
    if (seen_rows != nullptr) seen_rows[i] = any;
  }
}

bool look_at_block(const Geometry& g, const Buffers& buffers, const KeysOfBlock& block, const MarkedTile& room,
                   int size, bool* seen) {
  std::fill_n(seen, block.count, false);
  // Without a table for each head all heads see the same.
  const std::int64_t first = block.head_kv * g.group, heads = g.problem.mask.block_sparse.per_head ? g.group : 1;
  for (std::int64_t head = first; head < first + heads; ++head) {
    Marker marker = g.marker(buffers, block.batch, head, block.queries, block.keys);
    marker.drops = false;
    for (int query = block.query_begin; query < block.query_end; query += size) {
      MarkedTile tile = room;
      tile.query = query;
      tile.rows = min_of(size, block.query_end - query);
      tile.key = block.key;
      tile.keys = block.count;
      const Share share = marker.mask.share(query, query + tile.rows, block.key, block.key + block.count);
      if (share == Share::none) continue;
      mark_tile(marker, share, tile);
      look_at_marks(block.band, tile, seen, nullptr);
    }
  }
  return std::find(seen, seen + block.count, true) != seen + block.count;
}

}  // namespace fattn::host
