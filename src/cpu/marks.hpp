// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/geometry.hpp"

// Pairs that no interval of keys says all about: documents and block-sparse tables, which may hide a pair, and dropout,
// which takes its value. A tile of marks is what the passes compare with; marks-inl.hpp fills it.
namespace fattn::host {

// A tile of scores and its marks, in lines of `stride`: side by side lie the pairs of one key (by_queries, as the
// forward pass has its scores) or of one query (as the backward has them). query and key are multiples of 16, stride of
// 8.
struct MarkedTile {
  int query;  // first of the tile, within the sequence
  int rows;
  int key;
  int keys;
  int* marks;
  int stride;
  int lines;  // of a whole tile
  bool by_queries;
};

// Some queries and the tile of keys that they look at, in all heads that share the key head.
struct KeysOfBlock {
  std::int64_t batch;
  std::int64_t head_kv;
  Rows queries, keys;
  Band band;
  int query_begin;
  int query_end;
};

}  // namespace fattn::host
