// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/host_device.hpp"

namespace fattn {

// Keys [begin, end) seen by a query; empty when end <= begin.
struct Interval {
  int begin;
  int end;
};

// Tiles [begin, end) hold every visible pair; those in [interior_begin, interior_end) hold nothing else, so they need
// no element mask. begin <= interior_begin <= interior_end <= end.
struct TileRange {
  int begin;
  int interior_begin;
  int interior_end;
  int end;
};

// Lengths stay below 2^30 and limits at most there, so that the sum of a length and a limit never overflows an int.
inline constexpr int kUnbounded = 1 << 30;

// The part of a Mask that is one interval of keys per query: causal, window, chunk and prefix, in any intersection. A
// plain value that kernels take as a parameter; Band::of binds it to the lengths of one sequence.
struct BandLimits {
  int left = kUnbounded;   // keys at most this far before the diagonal
  int right = kUnbounded;  // and this far after it
  int chunk = 0;           // 0: none
  bool top_left = false;   // also key <= query
  bool prefix = false;     // also key < prefix or key <= diagonal; the prefix is data of each sequence
};

FATTN_HD int floor_div(int a, int b) { return a / b - (a % b < 0 ? 1 : 0); }
FATTN_HD int ceil_div(int a, int b) { return a / b + (a % b > 0 ? 1 : 0); }
FATTN_HD int min_of(int a, int b) { return a < b ? a : b; }
FATTN_HD int max_of(int a, int b) { return a > b ? a : b; }

// The Band mask of one sequence. The diagonal of a query is the key it is aligned with, bottom right.
struct Band {
  int seqlen_q;
  int seqlen_k;
  int left;
  int right;  // may be negative
  int chunk;
  int prefix = -1;  // -1: no such limit

  // prefix_length: of this sequence, any number; unused where the limits have no prefix.
  FATTN_HD static Band of(const BandLimits& limits, int seqlen_q, int seqlen_k, int prefix_length = 0) {
    const int right = limits.top_left ? min_of(limits.right, seqlen_q - seqlen_k) : limits.right;
    const int prefix = limits.prefix ? max_of(prefix_length, 0) : -1;
    return {seqlen_q, seqlen_k, limits.left, right, limits.chunk, prefix};
  }

  FATTN_HD int diagonal(int query) const { return query + seqlen_k - seqlen_q; }

  FATTN_HD Interval visible(int query) const {
    const int d = diagonal(query);
    int begin = max_of(0, d - left), end = min_of(seqlen_k, d + right + 1);
    if (chunk > 0) {
      const int first = floor_div(d, chunk) * chunk;
      begin = max_of(begin, first);
      end = min_of(end, first + chunk);
    }
    if (prefix >= 0) end = min_of(end, max_of(prefix, d + 1));
    return {begin, end};
  }

  FATTN_HD bool keep(int query, int key) const {
    const Interval keys = visible(query);
    return key >= keys.begin && key < keys.end;
  }

  // Tiles of `size` keys that the queries [query_begin, query_end) look at. Both ends of visible() grow with the query.
  FATTN_HD TileRange tiles(int query_begin, int query_end, int size) const {
    const Interval first = visible(query_begin), last = visible(query_end - 1);
    return range(first.begin, last.end, last.begin, first.end, size);
  }

  // Tiles of `size` queries that look at the keys [key_begin, key_end): the transposed question.
  FATTN_HD TileRange tiles_for(int key_begin, int key_end, int size) const {
    const int shift = seqlen_k - seqlen_q;                                // diagonal = query + shift
    int some_begin = key_begin - right, some_end = key_end + left;        // diagonals that see some key
    int all_begin = key_end - 1 - right, all_end = key_begin + left + 1;  // and every key
    if (chunk > 0) {
      const int first = floor_div(key_begin, chunk) * chunk, last = floor_div(key_end - 1, chunk) * chunk;
      some_begin = max_of(some_begin, first);
      some_end = min_of(some_end, last + chunk);
      all_begin = max_of(all_begin, last);
      all_end = min_of(all_end, first + chunk);
    }
    if (prefix >= 0 && key_begin >= prefix) some_begin = max_of(some_begin, key_begin);
    if (prefix >= 0 && key_end > prefix) all_begin = max_of(all_begin, key_end - 1);
    return range(max_of(0, some_begin - shift), min_of(seqlen_q, some_end - shift), max_of(0, all_begin - shift),
                 min_of(seqlen_q, all_end - shift), size);
  }

 private:
  // A ragged last tile is never interior: its elements beyond the length are masked like any other.
  FATTN_HD static TileRange range(int begin, int end, int all_begin, int all_end, int size) {
    if (end <= begin) return {0, 0, 0, 0};
    const int first = begin / size, last = ceil_div(end, size);
    int inner_first = ceil_div(all_begin, size), inner_last = all_end > 0 ? all_end / size : 0;
    inner_first = min_of(max_of(inner_first, first), last);
    inner_last = max_of(min_of(inner_last, last), inner_first);
    return {first, inner_first, inner_last, last};
  }
};

}  // namespace fattn
