// SPDX-License-Identifier: Apache-2.0
#pragma once

// Tiles of marks (cpu/marks.hpp). Plain loops over pairs that lie side by side: compilers make vectors of them.
namespace fattn::host::FATTN_TARGET {

inline void mark_documents(const PairMask& mask, const MarkedTile& tile) {
  const std::int32_t *const q = mask.document_q + tile.query, *const k = mask.document_k + tile.key;
  const std::int32_t *const across = tile.by_queries ? k : q, *const along = tile.by_queries ? q : k;
  const int lines = tile.by_queries ? tile.keys : tile.rows, length = tile.by_queries ? tile.rows : tile.keys;
  for (int i = 0; i < lines; ++i) {
    int* const line = tile.marks + i * tile.stride;
    const std::int32_t id = across[i];
    for (int j = 0; j < length; ++j) line[j] = along[j] == id ? kKept : kUnseen;
  }
}

// The marks of a block that is absent, or partial with its first bit given.
inline void mark_block(const BlockTable& table, int row, int column, bool present, std::int64_t first_bit,
                       const MarkedTile& tile) {
  // Blocks may be longer than an int is; what lies in the tile is not.
  const std::int64_t query = std::int64_t{row} * table.block_q, key = std::int64_t{column} * table.block_k;
  const auto within_tile = [](std::int64_t at, int begin, int count) {
    return static_cast<int>(at < begin ? 0 : at > begin + count ? count : at - begin);
  };
  const int row_begin = within_tile(query, tile.query, tile.rows);
  const int row_end = within_tile(query + table.block_q, tile.query, tile.rows);
  const int key_begin = within_tile(key, tile.key, tile.keys);
  const int key_end = within_tile(key + table.block_k, tile.key, tile.keys);
  const int begin = tile.by_queries ? key_begin : row_begin, end = tile.by_queries ? key_end : row_end;
  const int from = tile.by_queries ? row_begin : key_begin, to = tile.by_queries ? row_end : key_end;
  const std::int64_t step = tile.by_queries ? table.block_k : 1, line_step = tile.by_queries ? 1 : table.block_k;
  const std::int64_t first =
      first_bit + (tile.query + row_begin - query) * table.block_k + (tile.key + key_begin - key);
  for (int i = begin; i < end; ++i) {
    int* const line = tile.marks + i * tile.stride;
    if (!present) {
      for (int j = from; j < to; ++j) line[j] = kUnseen;
      continue;
    }
    auto bit = static_cast<std::uint64_t>(first + (i - begin) * line_step);
    for (int j = from; j < to; ++j, bit += static_cast<std::uint64_t>(step)) {
      line[j] &= -static_cast<int>(table.mask[bit / 32] >> (bit % 32) & 1u);
    }
  }
}

inline void mark_blocks(const BlockTable& table, const MarkedTile& tile) {
  const int first = tile.key / table.block_k, last = (tile.key + tile.keys - 1) / table.block_k;
  for (int row = tile.query / table.block_q; row <= (tile.query + tile.rows - 1) / table.block_q; ++row) {
    std::int32_t entry = table.find(row, first);
    for (int column = first; column <= last; ++column) {
      const bool present = table.holds(row, entry, column);
      const std::int64_t bits = present ? table.bits[entry++] : 0;
      if (!present || bits >= 0) mark_block(table, row, column, present, bits, tile);
    }
  }
}

// Philox (algebra/philox.hpp) on eight counters that differ in c0 or c1.
struct PhiloxLanes {
  std::uint32_t word[4][8];

  void draw(const DropoutWords& words) {
    std::uint32_t k0 = words.k0, k1 = words.k1;
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      for (int i = 0; i < 8; ++i) {
        const std::uint64_t a = std::uint64_t{0xD2511F53u} * word[0][i], b = std::uint64_t{0xCD9E8D57u} * word[2][i];
        word[0][i] = static_cast<std::uint32_t>(b >> 32) ^ word[1][i] ^ k0;
        word[1][i] = static_cast<std::uint32_t>(b);
        word[2][i] = static_cast<std::uint32_t>(a >> 32) ^ word[3][i] ^ k1;
        word[3][i] = static_cast<std::uint32_t>(a);
      }
    }
  }
};

// Eight calls at a time: {line, line + 8} x {n, n + 8} for eight n side by side. What lies beyond the tile is marked
// too, as far as its lines go.
inline void mark_dropped(const Marker& marker, const MarkedTile& tile) {
  const int lines = tile.by_queries ? tile.keys : tile.rows, length = tile.by_queries ? tile.rows : tile.keys;
  const int first_line = tile.by_queries ? tile.key : tile.query, first = tile.by_queries ? tile.query : tile.key;
  const auto group = [](int n) { return static_cast<std::uint32_t>(n / 16 * 8 + n % 8); };
  for (int i = 0; i < lines; i += i % 16 == 7 ? 9 : 1) {
    for (int j = 0; j < length; j += 16) {
      PhiloxLanes lanes;
      for (int n = 0; n < 8; ++n) {
        lanes.word[tile.by_queries ? 0 : 1][n] = group(first + j + n);
        lanes.word[tile.by_queries ? 1 : 0][n] = group(first_line + i);
        lanes.word[2][n] = marker.words.c2;
        lanes.word[3][n] = marker.words.c3;
      }
      lanes.draw(marker.words);
      for (int half = 0; half < 4; ++half) {
        const int line = i + half / 2 * 8, at = j + half % 2 * 8;
        if (line >= lines || at >= length) continue;
        const std::uint32_t* const word = lanes.word[tile.by_queries ? half % 2 * 2 + half / 2 : half];
        int* const marks = tile.marks + line * tile.stride + at;
        for (int n = 0; n < 8; ++n) {
          const int most = word[n] < marker.threshold ? kDropped : kKept;
          marks[n] = marks[n] < most ? marks[n] : most;
        }
      }
    }
  }
}

// share: what the mask keeps of the tile, not none.
inline void mark_tile(const Marker& marker, Share share, const MarkedTile& tile) {
  // Also what lies beyond the tile's rows and keys, which vectors read.
  for (int i = 0; i < tile.lines * tile.stride; ++i) tile.marks[i] = kKept;
  if (share == Share::some && marker.mask.document_q != nullptr) mark_documents(marker.mask, tile);
  if (share == Share::some && marker.mask.blocks.block_q > 0) mark_blocks(marker.mask.blocks, tile);
  if (marker.drops) mark_dropped(marker, tile);
}

// Which keys of a tile by queries are seen. Row i sees keys [first[i], last[i]) of the sequence, where marked so.
inline void look_at_keys(const MarkedTile& tile, const int* first, const int* last, bool* seen) {
  for (int j = 0; j < tile.keys; ++j) {
    const int* const line = tile.marks + j * tile.stride;
    const int key = tile.key + j;
    int any = 0;
    for (int i = 0; i < tile.rows; ++i) any |= line[i] != kUnseen && first[i] <= key && key < last[i] ? 1 : 0;
    seen[j] = any != 0;
  }
}

// Does a row of a tile by keys see any of its keys [first, last), counted within the tile?
inline bool sees_any(const MarkedTile& tile, int row, int first, int last) {
  const int* const line = tile.marks + row * tile.stride;
  int any = 0;
  for (int j = first; j < last; ++j) any |= line[j];
  return any != 0;
}

// Backward: which keys of a tile are seen by some query of the block, in tiles of `size`. False when none is.
// tile: its keys, and room for marks.
inline bool look_at_block(const Geometry& g, const Buffers& buffers, const KeysOfBlock& block, MarkedTile tile,
                          int size, bool* seen) {
  for (int j = 0; j < tile.keys; ++j) seen[j] = false;
  bool any = false;
  // Without a table for each head all heads see the same.
  const std::int64_t first = block.head_kv * g.group, heads = g.problem.mask.block_sparse.per_head ? g.group : 1;
  for (std::int64_t head = first; head < first + heads; ++head) {
    Marker marker = g.marker(buffers, block.batch, head, block.queries, block.keys);
    marker.drops = false;
    for (tile.query = block.query_begin; tile.query < block.query_end; tile.query += size) {
      tile.rows = min_of(size, block.query_end - tile.query);
      const Share share = marker.mask.share(tile.query, tile.query + tile.rows, tile.key, tile.key + tile.keys);
      if (share == Share::none) continue;
      any = true;
      if (share == Share::some) mark_tile(marker, share, tile);
      for (int i = 0; i < tile.rows; ++i) {
        const Interval visible = block.band.visible(tile.query + i);
        const int begin = max_of(0, visible.begin - tile.key), end = min_of(tile.keys, visible.end - tile.key);
        const int* const line = tile.marks + i * tile.stride;
        for (int j = begin; j < end; ++j) seen[j] = seen[j] || share == Share::all || line[j] != kUnseen;
      }
    }
  }
  return any;
}

}  // namespace fattn::host::FATTN_TARGET
