// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/geometry.hpp"

// Pairs that no interval of keys says all about: documents and block-sparse tables, which may hide a pair, and dropout,
// which takes its value. Plain code, compiled once: a tile of marks is what the vector code reads.
namespace fattn::host {

// A tile of scores as marks lie beside it: the mark of a pair is at marks[row * row_step + key * key_step].
struct MarkedTile {
  int query;  // first of the tile, within the sequence
  int rows;
  int key;
  int keys;
  int* marks;
  int row_step;
  int key_step;
  int capacity;  // marks of a whole tile
};

// share: what the mask keeps of the tile, not none.
void mark_tile(const Marker& marker, Share share, const MarkedTile& tile);

// Which rows and keys of a marked tile take part, the Band considered too. seen_keys are added to, seen_rows set;
// either may be null.
void look_at_marks(const Band& band, const MarkedTile& tile, bool* seen_keys, bool* seen_rows);

// Backward: which keys of a tile are seen by the queries [query_begin, query_end), in tiles of `size`, of any head that
// shares the key head. False when there are none. marks is room for a tile.
struct KeysOfBlock {
  std::int64_t batch;
  std::int64_t head_kv;
  Rows queries, keys;
  Band band;
  int query_begin;
  int query_end;
  int key;
  int count;
};
bool look_at_block(const Geometry& g, const Buffers& buffers, const KeysOfBlock& block, const MarkedTile& room,
                   int size, bool* seen);

}  // namespace fattn::host
