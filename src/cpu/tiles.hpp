// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fattn::host {

// How a target's micro-kernels block a product: rows x panel results at a time.
struct Blocking {
  int rows;
  int panel;
  const char* text;
};

// A tile of scores: q queries x k keys, both multiples of every target's blocking.
struct Tile {
  int q;
  int k;
};

// A tile's operands together stay below the 1 MiB of a common L2.
// Zen 5 (1 MiB L2), AVX2, fp32, d128, 2048 x 2048, one thread, % of the FMA peak measured beside it, forward /
// backward:
//   96x96 75 / 80   192x96 76 / 72   144x96 75 / 70   96x192 71 / 78   96x48 72 / 76   48x96 67 / 78   48x48 69 / 77
constexpr Tile forward_tile(int d, int dv) { return d + dv <= 512 ? Tile{.q = 96, .k = 96} : Tile{.q = 48, .k = 48}; }
constexpr Tile backward_tile(int d, int dv) { return d + dv <= 512 ? Tile{.q = 96, .k = 96} : Tile{.q = 48, .k = 48}; }

// Side of a block of the backward pass: long enough that packing K and V and starting a wave cost little, short enough
// that a head of 2048 keys keeps four threads busy. Same machine, bf16, d128 4096 full / d64 2048 causal:
//   192 78 / 72   480 81 / 74   960 81 / 72
inline constexpr int kBackwardChunk = 480;

}  // namespace fattn::host
