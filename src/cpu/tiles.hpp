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
constexpr Tile forward_tile(int d, int dv) { return d + dv <= 512 ? Tile{.q = 96, .k = 96} : Tile{.q = 48, .k = 48}; }
constexpr Tile backward_tile(int d, int dv) { return d + dv <= 512 ? Tile{.q = 96, .k = 96} : Tile{.q = 48, .k = 48}; }

// Side of a block of the backward pass: long enough that packing K and V and starting a wave cost little, short enough
// that a head of 2048 keys keeps four threads busy.
inline constexpr int kBackwardChunk = 480;

}  // namespace fattn::host
