// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace fattn::host {

// How a target's micro-kernels block a product: rows x panel results at a time.
struct Blocking {
  int rows;
  int panel;
  const char* text;
  bool pairs = false;        // operands are bf16 in pairs, padded to whole panels (gemm/pairs-inl.hpp)
  bool whole_tiles = false;  // likewise
};

// A tile of scores: q queries x k keys, both multiples of every target's blocking. Forward: `group` tiles of keys are
// packed before any is multiplied.
struct Tile {
  int q;
  int k;
  int group = 1;
  friend bool operator==(const Tile&, const Tile&) = default;
};
inline constexpr int kMostTiles = 8;  // of a group

// All sides are multiples of these; every target's blocking divides them.
inline constexpr int kTileSide = 96, kHalfTileSide = 48;

// Zen 5 (1 MiB L2), AVX2, fp32, d128, 2048 x 2048, one thread, % of the FMA peak measured beside it, forward /
// backward:
//   96x96 82 / 83   192x96 85 / 77   144x96 84 / 77   96x192 82 / 84   96x48 81 / 81   48x96 77 / 83   48x48 77 / 80
// Taller tiles lose 1 to 2 under a causal mask and halve the items of a short sequence. With AVX-512 packing weighs
// more: forward 96x96 72, 192x96 75. Operands and scores stay below three quarters of the second cache.
inline Tile forward_tile(const Blocking& blocking, int d, int dv, std::int64_t l2_bytes) {
  const std::int64_t room = l2_bytes / 4 * 3, columns = d + dv;
  const auto bytes = [&](std::int64_t q, std::int64_t k) { return 4 * (k * columns + q * columns + k * q); };
  const int k = bytes(kTileSide, kTileSide) <= room ? kTileSide : kHalfTileSide;
  const int q = blocking.panel >= 32 && bytes(2 * kTileSide, k) <= room ? 2 * kTileSide : kTileSide;
  return {.q = q, .k = k};
}
// Operands in pairs: a third of the room holds a group of tiles of keys, the rest queries and their output.
// Keys are packed once for all of them: with AMX and 2 MiB, 1536 queries instead of 768 are 1.04 to 1.06 times as fast
// at d128 (1.01 causal), 1.08 times at d64 with 1024 queries in one item instead of 768 and 256.
inline constexpr int kTallest = 16;
inline Tile forward_pairs_tile(int d, int dv, std::int64_t l2_bytes, std::int64_t seqlen_q) {
  const std::int64_t room = l2_bytes / 4 * 3, k = kTileSide;
  Tile tile{.q = kTileSide, .k = kTileSide};
  while (tile.group < kMostTiles && (tile.group + 1) * k * (d + dv) * 2 <= room / 3) ++tile.group;
  const std::int64_t left = room - tile.group * k * (d + dv) * 2;
  while (tile.q < kTallest * kTileSide && tile.q < seqlen_q && 2 * tile.q * (2 * d + 4 * dv) <= left) tile.q *= 2;
  return tile;
}
inline Tile backward_tile(const Blocking& blocking, int d, int dv, std::int64_t l2_bytes) {
  const std::int64_t side = kTileSide;
  const std::int64_t bytes = 4 * (side * (2 * d + dv) + side * (d + dv) + 2 * side * side);
  const bool fits = blocking.pairs || bytes <= l2_bytes / 8 * 7;
  return {.q = fits ? kTileSide : kHalfTileSide, .k = kTileSide};
}

// Every tile that the micro-kernels can fill: what `fattn tune` walks. A side of 48 has to be made of whole panels.
// `groups`: with more than one tile of keys in a group, too.
std::vector<Tile> forward_tiles(const Blocking& blocking, bool groups);
std::vector<Tile> backward_tiles(const Blocking& blocking);

// A plan for at most so many queries cuts the keys into parts of their own items. The parts are a matter of the key's
// position alone, so that bits depend neither on threads nor on what else is in the batch.
inline constexpr int kFewQueries = 32, kSplitKeys = 10 * kTileSide;

// Up to so many queries a head are computed on keys as they lie, with as many heads as make so many rows.
inline constexpr int kFewestQueries = 8, kMostFewRows = 48;

// Side of a block of the backward pass: long enough that packing K and V and starting a block cost little, short enough
// that a head of 2048 keys keeps four threads busy. Same machine, bf16, one head, one / two threads,
// d128 4096 full; d64 2048 causal:
//   192 80 / 79; 74 / 67   480 84 / 81; 75 / 62   960 85 / 74; 76 / 53
// Operands in pairs, plain problems: all queries of a block are packed at once, in two layouts; a third of them at a
// time, as it would fit the second cache better, is 4 % slower at d128 and no faster at d256.
inline constexpr int kBackwardChunk = 480;

}  // namespace fattn::host
