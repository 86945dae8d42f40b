// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/sm90/barriers.hpp"
#include "cuda/sm90/schedule.hpp"
#include "fattn/tensor.hpp"

namespace fattn::gpu::sm90 {

// How outputs leave: straight from registers; through a buffer of their own and the copy engine; or through stages of
// the values' ring, one a computing warpgroup, and the copy engine.
enum class OutputWay { registers, buffer, values };

// The shape of one forward kernel. A plain value and a template parameter; docs/sm90_forward.md explains the schedule.
struct ForwardTile {
  int m;         // query rows of a block, 64 a computing warpgroup
  int n;         // keys of a tile
  int d;         // largest head_dim of q and k; smaller ones are filled with zeros by the copy engine
  int dv;        // largest head_dim of v and o
  int k_stages;  // one more than of values: weights follow a stale reference, and a key tile is held one step longer
  int v_stages;
  int load_registers;  // a thread, after setmaxnreg
  int compute_registers;
  bool q_registers;  // queries live in registers, else in shared memory
  OutputWay output;
  bool skip_halves;  // no softmax of a masked tile's half that no row of a warp sees; where it pays
  bool own_tiles;    // each warpgroup leaves out the last tiles of the item that its own rows do not see
  int keys_from;     // visible keys a query, on average, from which this tile is the better one

  constexpr int compute_warpgroups() const { return m / 64; }
  constexpr int threads() const { return 128 * (compute_warpgroups() + 1); }
  constexpr bool stale_reference() const { return k_stages == v_stages + 1; }
  friend constexpr bool operator==(const ForwardTile&, const ForwardTile&) = default;
};

enum class TileFor { any, long_sequences };

// The tile of each compiled kernel. All zero: there is none. What else was tried is in docs/sm90_forward.md.
constexpr ForwardTile forward_tile(DType dtype, int d, int dv, TileFor length = TileFor::any) {
  if (dtype != DType::bf16 && dtype != DType::fp16) return {};
  ForwardTile tile{.m = 128,
                   .n = 128,
                   .d = d,
                   .dv = dv,
                   .k_stages = 3,
                   .v_stages = 2,
                   .load_registers = 40,
                   .compute_registers = 232,
                   .q_registers = true,
                   .output = OutputWay::buffer,
                   .skip_halves = false,
                   .own_tiles = false,
                   .keys_from = 0};
  if (length == TileFor::long_sequences) {
    // TFLOP/s on an H200 at 4k / 16k keys: full 553 / 610, causal 16k 587, where 128 x 128 has 524 / 534, 540; at 512
    // causal 219 against 270
    tile.m = 192;
    tile.n = 112;
    tile.k_stages = 6;
    tile.v_stages = 5;
    tile.load_registers = 32;
    tile.compute_registers = 160;
    tile.keys_from = 1500;
    return d == 64 && dv == 64 ? tile : ForwardTile{};
  }
  if (d == 64 && dv == 64) {
    tile.k_stages = 5;
    tile.v_stages = 4;
    tile.skip_halves = true;
    return tile;
  }
  if (d == 96 && dv == 96) return tile;
  // full 703 / 787 / 802, causal 523 / 726 / 798 TFLOP/s on an H200 at 1k / 4k / 16k keys (cuDNN 611 / 666 / 674 and
  // 440 / 571 / 628 in the same run)
  if (d == 128 && dv == 128) return tile;
  tile.output = OutputWay::registers;
  if (d == 192 && dv == 128) {
    tile.n = 96;
    return tile;
  }
  tile.n = 80;
  if (d == 192 && dv == 192) return tile;
  // causal 375 / 557 / 658 / 739 / 781 / 803 TFLOP/s from 512 to 16k keys, where 80 keys and walks in common have 364 /
  // 537 / 645 / 729 / 778 / 801; full 625 / 739 / 791 / 817 / 830 / 830 and 619 / 742 / 791 / 812 / 828 / 834
  tile.n = 64;
  tile.k_stages = 2;
  tile.q_registers = false;
  tile.own_tiles = true;
  tile.output = OutputWay::values;
  if (d == 256 && dv == 256) return tile;
  return {};
}

// The same for sources of any length. With softcap and ALiBi maxima are true: they need no recovery, which halves the
// code that ptxas has to get through.
constexpr ForwardTile varlen_tile(ForwardTile tile, bool modified) {
  if (modified) tile.k_stages = tile.v_stages;
  if (modified && tile.dv == 192) tile.q_registers = false;  // else the loop spills
  tile.skip_halves = false;
  tile.own_tiles = false;
  if (tile.d == 256) tile.n = 80;  // of 64 there is no measurement here
  return tile;
}

// Bytes of a tile of 16-bit elements in shared memory: slices of 64 columns (tile/swizzle.cuh).
constexpr int tile_bytes(int rows, int columns) { return (columns + 63) / 64 * rows * 128; }

// Shared memory of a block. `Place` is what the loader says of an item beside the item.
template <ForwardTile tile, class Place>
struct ForwardShared {
  // Alive at a time: stored, computed, handed over, taken by the loader, found. Even: slots tell parities.
  static constexpr int kItems = 6;
  static constexpr int kBytesQ = tile_bytes(64, tile.d), kBytesO = tile_bytes(64, tile.dv);
  static constexpr int kBytesK = tile_bytes(tile.n, tile.d), kBytesV = tile_bytes(tile.n, tile.dv);

  alignas(1024) unsigned char q[tile.compute_warpgroups()][kBytesQ];
  alignas(1024) unsigned char k[tile.k_stages][kBytesK];
  alignas(1024) unsigned char v[tile.v_stages][kBytesV];
  static constexpr bool kBufferO = tile.output == OutputWay::buffer;
  alignas(kBufferO ? 1024 : 16) unsigned char o[kBufferO ? tile.compute_warpgroups() : 1][kBufferO ? kBytesO : 16];
  alignas(16) Item items[kItems];
  Item own[tile.own_tiles ? kItems : 1][tile.own_tiles ? tile.compute_warpgroups() : 1];  // as each warpgroup walks it
  Place places[kItems];
  std::uint64_t item_barriers[2];                          // full, empty
  std::uint64_t q_barriers[tile.compute_warpgroups()][2];  // full, empty
  std::uint64_t k_barriers[2 * tile.k_stages];
  std::uint64_t v_barriers[2 * tile.v_stages];
  std::uint64_t output_read[tile.v_stages];  // an item's output has left this stage of values; OutputWay::values
  int overflow[kMaxComputeWarpgroups][tile.k_stages];  // a weight of this key tile was 2^100 or more

  // Full; empty is 8 bytes further.
  FATTN_HD static std::uint32_t query_barrier(std::uint32_t shared, int warpgroup) {
    return shared + static_cast<std::uint32_t>(offsetof(ForwardShared, q_barriers)) + 16 * warpgroup;
  }
  // Of barriers that complete once an item.
  FATTN_HD static std::uint32_t parity(int slot) { return slot & 1; }
};

template <ForwardTile tile, class Shared>
constexpr bool check_forward_tile() {
  static_assert(tile.m % 64 == 0 && tile.m >= 128,
                "the turn barrier passes between at least two warpgroups of 64 rows");
  static_assert(tile.compute_warpgroups() <= kMaxComputeWarpgroups, "barriers.hpp numbers barriers for so many");
  static_assert(tile.n % 16 == 0, "P.V consumes keys 16 at a time");
  static_assert(tile.d % 16 == 0 && tile.dv % 32 == 0, "Q.K reduces over 16 columns; 4 lanes store 32 of O");
  static_assert(tile.n <= 256 && tile.dv <= 256, "wgmma and a box of the copy engine are at most 256 wide");
  static_assert(tile.stale_reference() || tile.k_stages == tile.v_stages, "keys and values go in step");
  static_assert(!tile.stale_reference() || tile.q_registers, "the recovery needs the queries until the next turn");
  static_assert(!tile.own_tiles || !tile.q_registers, "cross() begins an item with the tile that is next");
  static_assert(tile.output != OutputWay::values ||
                    (tile.v_stages == 2 && tile.compute_warpgroups() == 2 && Shared::kBytesO <= Shared::kBytesV),
                "each warpgroup's output leaves through one of two stages of values");
  // setmaxnreg moves registers inside what the block got at launch; a warpgroup that asks for more waits for ever.
  static_assert(tile.load_registers + tile.compute_warpgroups() * tile.compute_registers <=
                    (tile.compute_warpgroups() + 1) * (65536 / tile.threads() / 8 * 8),
                "the warpgroups share the registers that the block is launched with");
  static_assert(
      (tile.dv + tile.n + tile.n / 2 + (tile.q_registers ? tile.d / 2 : 0)) / 2 <= tile.compute_registers - 24,
      "O, S, P and Q live in registers, beside 24 for the rest");
  static_assert(sizeof(Shared) <= 227 * 1024, "a block has 227 KiB of shared memory");
  return true;
}

}  // namespace fattn::gpu::sm90
