// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/sm90/backward_schedule.hpp"
#include "fattn/tensor.hpp"

namespace fattn::gpu::sm90 {

// The shape of one backward kernel. A plain value and a template parameter; docs/sm90_backward.md explains the
// schedule.
struct BackwardTile {
  int m;               // query rows of a tile
  int n;               // keys of a block, 64 a computing warpgroup
  int d;               // head_dim
  int stages;          // of the rings of q and dO
  int load_registers;  // a thread, after setmaxnreg
  int compute_registers;
  bool wide;           // backward_wide.cuh: two warpgroups share 64 keys
  bool whole_weights;  // P before rounding is kept in fp32, else as what rounding leaves and 8 bits; not where wide

  constexpr int compute_warpgroups() const { return wide ? 2 : n / 64; }
  constexpr int threads() const { return 128 * (compute_warpgroups() + 1); }
  // dQ of a tile is cut into parts of 64 rows, one for each computing warpgroup.
  constexpr int part_columns() const { return m * d / (64 * compute_warpgroups()); }
  constexpr int parts_of_columns() const { return d / part_columns(); }
  friend constexpr bool operator==(const BackwardTile&, const BackwardTile&) = default;
};

// The tile of each compiled kernel. All zero: there is none.
constexpr BackwardTile backward_tile(DType dtype, int d, int dv) {
  BackwardTile tile{.m = 64,
                    .n = 128,
                    .d = d,
                    .stages = 2,
                    .load_registers = 24,
                    .compute_registers = 240,
                    .wide = false,
                    .whole_weights = false};
  if ((dtype != DType::bf16 && dtype != DType::fp16) || d != dv) return {};
  if (d == 64) tile.m = 128;
  if (d == 64 || d == 128) return tile;
  tile.n = 64;
  tile.wide = true;
  if (d == 192 || d == 256) return tile;
  return {};
}

// The same for scores with a derivative, which P has to be multiplied by before it makes dS, but not for dV: what is
// kept beside the rounded P does not hold both. In fp32 P fits beside tiles of 64 queries of 64 columns only.
constexpr BackwardTile modified_tile(DType, BackwardTile tile) {
  tile.m = 64;
  tile.whole_weights = tile.d == 64;
  tile.wide = tile.d > 64;
  if (tile.wide) tile.n = 64;
  return tile;
}

// P is computed and rounded as so many powers of two more, where it is kept in parts (tile/split.cuh).
constexpr int weight_shift(DType dtype, BackwardTile tile) {
  return dtype == DType::fp16 && !tile.wide && !tile.whole_weights ? 12 : 0;
}

// dS of a step is read one step later by warpgroups that need not run in step: three tiles are alive.
inline constexpr int kScoreGradients = 3;

// Items are handed from the thread that asks for them to everybody else, one ahead.
struct BackwardItemBarriers {
  std::uint64_t full[2];
  std::uint64_t empty[2];  // everybody is done with the item
  std::uint64_t wanted;    // the loader has loaded all of an item
};

// Shared memory of a block. Elements are 16-bit; the tiles are swizzled (tile/swizzle.cuh). After an item's last step
// dV is staged where V was and dK in tiles of dS that nobody needs any more. `Place` is what is known of an item beside
// the item.
template <BackwardTile tile, class Place>
struct BackwardShared {
  using Element = std::uint16_t;
  static constexpr int kParts = tile.compute_warpgroups();

  alignas(1024) Element k[tile.n * tile.d];
  alignas(1024) Element v[tile.n * tile.d];
  alignas(1024) Element q[tile.stages][tile.m * tile.d];
  alignas(1024) Element dout[tile.stages][tile.m * tile.d];
  alignas(1024) Element ds[kScoreGradients][tile.m * tile.n];
  alignas(1024) float dq[kParts][64 * tile.part_columns()];
  alignas(16) float row_lse[tile.stages][tile.m];
  alignas(16) float row_delta[tile.stages][tile.m];
  BackwardItem item[2];
  Place place[2];
  TileRange own[2][kParts];  // query tiles of each computing warpgroup's keys
  BackwardItemBarriers items;
  std::uint64_t k_full;
  std::uint64_t k_empty;
  std::uint64_t v_full;
  std::uint64_t v_empty;
  std::uint64_t q_full[tile.stages];  // with row_lse
  std::uint64_t q_empty[tile.stages];
  std::uint64_t dout_full[tile.stages];  // with row_delta
  std::uint64_t dout_empty[tile.stages];
  std::uint64_t ds_full[kScoreGradients];  // all computing warps have written theirs
  std::uint64_t dq_full[kParts];
  std::uint64_t dq_empty[kParts];
  int added;  // in turn: rounds whose additions to dQ are complete
};

// The same for wide heads.
template <BackwardTile tile, class Place>
struct BackwardWideShared {
  using Element = std::uint16_t;

  alignas(1024) Element k[tile.n * tile.d];
  alignas(1024) Element v[tile.n * tile.d];
  alignas(1024) Element q[tile.stages][tile.m * tile.d];
  alignas(1024) Element dout[tile.stages][tile.m * tile.d];
  alignas(1024) Element ds[2][tile.m * tile.n];
  alignas(1024) float weights[tile.m * tile.n];  // P, in the order of accumulators
  alignas(16) float row_lse[tile.stages][tile.m];
  alignas(16) float row_delta[tile.stages][tile.m];
  BackwardItem item[2];
  Place place[2];
  BackwardItemBarriers items;
  std::uint64_t k_full;
  std::uint64_t k_empty;
  std::uint64_t v_full;
  std::uint64_t v_empty;
  std::uint64_t q_full[tile.stages];  // with row_lse
  std::uint64_t q_empty[tile.stages];
  std::uint64_t dout_full[tile.stages];  // with row_delta
  std::uint64_t dout_empty[tile.stages];
  std::uint64_t ds_full[2];
  std::uint64_t turn_full[2];   // of each computing warpgroup: it may add dQ of the step
  std::uint64_t turn_done[2];   // it has
  std::uint64_t turn_empty[2];  // and that has been seen
  int turn_number[2];           // of the turn
  TeamTurns turns[2];           // of each item, in teams
  std::uint64_t weights_full;
  std::uint64_t weights_empty;
};

template <BackwardTile tile, class Shared>
constexpr bool check_wide_tile() {
  static_assert(tile.m == 64 && tile.n == 64, "the two warpgroups share 64 keys and walk over 64 queries at a time");
  static_assert(tile.d % 64 == 0, "swizzled slices are 64 columns wide; two warpgroups may have halves of one");
  static_assert((tile.d + 64 + 64 + 32) / 2 <= tile.compute_registers - 24,
                "a sum, a product, dQ and a left operand live in registers, beside 24 for the rest");
  static_assert(sizeof(Shared) <= 227 * 1024, "a block has 227 KiB of shared memory");
  return true;
}

template <BackwardTile tile, class Shared>
constexpr bool check_narrow_tile() {
  static_assert(tile.m % 64 == 0, "dQ is computed in parts of 64 rows");
  static_assert(tile.n == 128, "a computing warpgroup owns 64 keys; the loading one has threads for two");
  static_assert(tile.d % 64 == 0, "swizzled slices are 64 columns wide");
  static_assert(tile.m <= 256 && tile.d <= 256, "wgmma and a box of the copy engine are at most 256 wide");
  static_assert(tile.part_columns() % 32 == 0 && tile.part_columns() <= tile.d,
                "each computing warpgroup has one part of dQ, of whole slices or half of one");
  static_assert(tile.stages >= 2, "the next scores start before this step's queries are done");
  static_assert(tile.d + (tile.m + tile.part_columns() + tile.m / 2) / 2 + (tile.whole_weights ? tile.m / 2 : 0) <=
                    tile.compute_registers - 24,
                "dK, dV, S, dQ and P or dS live in registers, beside 24 for the rest");
  static_assert(sizeof(Shared) <= 227 * 1024, "a block has 227 KiB of shared memory");
  return true;
}

template <BackwardTile tile, class Shared>
constexpr bool check_backward_tile() {
  // setmaxnreg moves registers inside what the block got at launch; a warpgroup that asks for more waits for ever.
  static_assert(tile.load_registers + tile.compute_warpgroups() * tile.compute_registers <=
                    (tile.compute_warpgroups() + 1) * (65536 / tile.threads() / 8 * 8),
                "the warpgroups share the registers that the block is launched with");
  if constexpr (tile.wide) {
    return check_wide_tile<tile, Shared>();
  } else {
    return check_narrow_tile<tile, Shared>();
  }
}

}  // namespace fattn::gpu::sm90
