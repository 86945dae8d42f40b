// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/sm90/barriers.hpp"
#include "cuda/sm90/schedule.hpp"
#include "fattn/tensor.hpp"

namespace fattn::gpu::sm90 {

// The shape of one forward kernel. A plain value and a template parameter; docs/sm90_forward.md explains the schedule.
struct ForwardTile {
  int m;         // query rows of a block, 64 a computing warpgroup
  int n;         // keys of a tile
  int d;         // head_dim of q and k
  int dv;        // head_dim of v and o
  int k_stages;  // a key tile is held one step longer than a value tile, until its scores are known to be finite
  int v_stages;
  int load_registers;  // a thread, after setmaxnreg
  int compute_registers;

  constexpr int compute_warpgroups() const { return m / 64; }
  constexpr int threads() const { return 128 * (compute_warpgroups() + 1); }
  friend constexpr bool operator==(const ForwardTile&, const ForwardTile&) = default;
};

// The tile of each compiled kernel. All zero: there is none. Beside it TFLOP/s on an H200 at 1k / 4k / 16k keys; what
// else was tried is in docs/sm90_forward.md.
constexpr ForwardTile forward_tile(DType dtype, int d, int dv) {
  // full 703 / 787 / 802, causal 523 / 726 / 798 (cuDNN 611 / 666 / 674 and 440 / 571 / 628 in the same run)
  if (dtype == DType::bf16 && d == 128 && dv == 128)
    return {.m = 128,
            .n = 128,
            .d = 128,
            .dv = 128,
            .k_stages = 3,
            .v_stages = 2,
            .load_registers = 40,
            .compute_registers = 232};
  return {};
}

// Shared memory of a block. Elements are 16-bit; the tiles are swizzled (tile/swizzle.cuh).
template <ForwardTile tile>
struct ForwardShared {
  using Element = std::uint16_t;
  static constexpr int kItems = 3;  // alive at a time: being stored, being computed, being loaded

  alignas(1024) Element q[tile.m * tile.d];
  alignas(1024) Element o[tile.m * tile.dv];
  alignas(1024) Element k[tile.k_stages][tile.n * tile.d];
  alignas(1024) Element v[tile.v_stages][tile.n * tile.dv];
  alignas(16) Item items[kItems];
  std::uint64_t q_barriers[2];  // full, empty
  std::uint64_t k_barriers[2 * tile.k_stages];
  std::uint64_t v_barriers[2 * tile.v_stages];
  int overflow[kMaxComputeWarpgroups][tile.k_stages];  // a weight of this key tile was 2^100 or more
};

template <ForwardTile tile>
constexpr bool check_forward_tile() {
  static_assert(tile.m % 64 == 0 && tile.m >= 128,
                "the turn barrier passes between at least two warpgroups of 64 rows");
  static_assert(tile.compute_warpgroups() <= kMaxComputeWarpgroups, "barriers.hpp numbers barriers for so many");
  static_assert(tile.n % 16 == 0, "P.V consumes keys 16 at a time");
  static_assert(tile.d % 64 == 0 && tile.dv % 64 == 0, "swizzled slices are 64 columns wide");
  static_assert(tile.n <= 256 && tile.dv <= 256, "wgmma and a box of the copy engine are at most 256 wide");
  static_assert(tile.k_stages == tile.v_stages + 1, "the recovery holds one key tile more than values");
  // setmaxnreg moves registers inside what the block got at launch; a warpgroup that asks for more waits for ever.
  static_assert(tile.load_registers + tile.compute_warpgroups() * tile.compute_registers <=
                    (tile.compute_warpgroups() + 1) * (65536 / tile.threads() / 8 * 8),
                "the warpgroups share the registers that the block is launched with");
  static_assert((tile.dv + tile.n + tile.n / 2 + tile.d / 2) / 2 <= tile.compute_registers - 24,
                "O, S, P and Q live in registers, beside 24 for the rest");
  static_assert(sizeof(ForwardShared<tile>) <= 227 * 1024, "a block has 227 KiB of shared memory");
  return true;
}

}  // namespace fattn::gpu::sm90
