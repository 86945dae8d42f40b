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
//   96x96 82 / 83   192x96 85 / 77   144x96 84 / 77   96x192 82 / 84   96x48 81 / 81   48x96 77 / 83   48x48 77 / 80
// Taller tiles lose 1 to 2 under a causal mask and halve the items of a short sequence.
constexpr Tile forward_tile(int d, int dv) { return d + dv <= 512 ? Tile{.q = 96, .k = 96} : Tile{.q = 96, .k = 48}; }
constexpr Tile backward_tile(int d, int dv) { return d + dv <= 512 ? Tile{.q = 96, .k = 96} : Tile{.q = 48, .k = 96}; }

// Side of a block of the backward pass: long enough that packing K and V and starting a wave cost little, short enough
// that a head of 2048 keys keeps four threads busy. Same machine, bf16, one head, one / two threads,
// d128 4096 full; d64 2048 causal:
//   192 80 / 79; 74 / 67   480 84 / 81; 75 / 62   960 85 / 74; 76 / 53
inline constexpr int kBackwardChunk = 480;

}  // namespace fattn::host
