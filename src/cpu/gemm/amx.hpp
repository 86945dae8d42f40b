// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/vec/pairs_avx512.hpp"

namespace fattn::host::FATTN_TARGET {

inline constexpr int kBlockRows = 16;
inline constexpr int kPanel = 32;
inline constexpr bool kWholeTiles = true;
inline constexpr const char* kKernelText = "bf16 AMX, 16x32 kernel";

}  // namespace fattn::host::FATTN_TARGET

#include "cpu/gemm/pairs-inl.hpp"

namespace fattn::host::FATTN_TARGET {

inline Vec pairs_of_weights(Vec a, Vec b) { return integer_pairs_of(a, b); }

// The compiler does not know which memory tiles are loaded from and stored to.
#define FATTN_MEMORY_BARRIER __asm__ volatile("" ::: "memory")

// All eight tiles are 16 rows of 64 bytes. The configuration belongs to the thread; without it the operating system has
// no tiles to save.
class Tiles {
 public:
  Tiles() {
    alignas(64) std::uint8_t config[64] = {1};  // palette
    for (int tile = 0; tile < 8; ++tile) {
      config[16 + 2 * tile] = 64;
      config[48 + tile] = 16;
    }
    // The intrinsic tells the compiler of the first eight bytes only.
    __asm__ volatile("" : : "r"(config) : "memory");
    _tile_loadconfig(config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// 16 rows and one panel in two tiles; the blocks take turns with two pairs of tiles, so that the sums of the one before
// are stored while this one multiplies. The left side comes from the second cache and is used once, the right side
// stays in the first.
#define FATTN_TILE_BLOCK(left_sum, right_sum, left_before, right_before)                                \
  do {                                                                                                  \
    if (into == Into::add) {                                                                            \
      _tile_loadd(left_sum, c, c_bytes);                                                                \
      _tile_loadd(right_sum, c + c_half, c_bytes);                                                      \
    } else {                                                                                            \
      _tile_zero(left_sum);                                                                             \
      _tile_zero(right_sum);                                                                            \
    }                                                                                                   \
    FATTN_UNROLL(8)                                                                                     \
    for (int step = 0; step < steps; ++step) {                                                          \
      _tile_stream_loadd(4, a + step * a_step, a_bytes);                                                \
      _tile_loadd(6, b + step * b_step, b_bytes);                                                       \
      _tile_dpbf16ps(left_sum, 4, 6);                                                                   \
      period == 0 ? work.turn() : work.go();                                                            \
      if (before != nullptr && step == 0) _tile_stored(left_before, before, c_bytes);                   \
      _tile_loadd(7, b + step * b_step + b_half, b_bytes);                                              \
      _tile_dpbf16ps(right_sum, 4, 7);                                                                  \
      if (period == 0) work.turn();                                                                     \
      if (period == 1) work.go();                                                                       \
      if (before != nullptr && step == steps / 2) _tile_stored(right_before, before + c_half, c_bytes); \
    }                                                                                                   \
    before = c;                                                                                         \
    a += 16 * a_stride;                                                                                 \
    c += 16 * c_row;                                                                                    \
  } while (false)

// unrolled: the steps of a usual depth; 0: any depth. period: a turn has work every time or every second time; 0: who
// knows. Known, it takes no branch.
template <Into into, int unrolled, int period, bool whole, class Between>
inline void product_of(const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                       std::int64_t b_stride, int depth, const Sums& sums, Between& between) {
  constexpr std::int64_t kTileRow = 32;  // elements
  const std::int64_t b_row = whole ? kTileRow : b_stride, b_half = whole ? b_stride : kTileRow;
  const std::int64_t a_bytes = 2 * (whole ? kTileRow : a_stride), a_step = whole ? 16 * kTileRow : kPairDepth;
  const std::int64_t b_bytes = 2 * b_row, b_step = 16 * b_row;
  const std::int64_t c_row = sums.row, c_half = sums.half, c_bytes = 4 * c_row;
  float* c = sums.at;
  const int steps = unrolled > 0 ? unrolled : depth / kPairDepth;
  FATTN_MEMORY_BARRIER;
  Between work = between;  // a copy of our own stays in registers
  float* before = nullptr;
  int m = 0;
  for (; m + 32 <= rows; m += 32) {
    FATTN_TILE_BLOCK(0, 1, 2, 3);
    FATTN_TILE_BLOCK(2, 3, 0, 1);
  }
  if (m < rows) {
    FATTN_TILE_BLOCK(0, 1, 2, 3);
    _tile_stored(0, before, c_bytes);
    _tile_stored(1, before + c_half, c_bytes);
  } else if (before != nullptr) {
    _tile_stored(2, before, c_bytes);
    _tile_stored(3, before + c_half, c_bytes);
  }
  between = work;
  FATTN_MEMORY_BARRIER;
}
#undef FATTN_TILE_BLOCK
#undef FATTN_MEMORY_BARRIER

template <Into into, int unrolled, bool whole, class Between>
inline void product_with(const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                         std::int64_t b_stride, int depth, const Sums& sums, Between& between) {
  if constexpr (Between::kRegular && unrolled > 0) {
    switch (between.period()) {
      case 1: return product_of<into, unrolled, 1, whole>(a, a_stride, rows, b, b_stride, depth, sums, between);
      case 2: return product_of<into, unrolled, 2, whole>(a, a_stride, rows, b, b_stride, depth, sums, between);
      default: break;
    }
  }
  product_of<into, unrolled, 0, whole>(a, a_stride, rows, b, b_stride, depth, sums, between);
}

template <Into into, bool whole, class Between>
inline void product_by_depth(const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                             std::int64_t b_stride, int depth, const Sums& sums, Between& between) {
  switch (depth / kPairDepth) {
    case 2: return product_with<into, 2, whole>(a, a_stride, rows, b, b_stride, depth, sums, between);
    case 3: return product_with<into, 3, whole>(a, a_stride, rows, b, b_stride, depth, sums, between);
    case 4: return product_with<into, 4, whole>(a, a_stride, rows, b, b_stride, depth, sums, between);
    default: return product_with<into, 0, whole>(a, a_stride, rows, b, b_stride, depth, sums, between);
  }
}

// c[m][n] (+)= sum over k of a[m][k] b[k][n]; rows: a multiple of 16, depth: of kPairDepth.
template <Into into, class Between>
inline void product(const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                    std::int64_t b_stride, int depth, float* c, std::int64_t c_stride, Between& between) {
  product_by_depth<into, false>(a, a_stride, rows, b, b_stride, depth, Sums{c, c_stride, kHalfPanel}, between);
}
template <Into into, class Between>
inline void panel_product(const std::uint16_t* a, std::int64_t a_depth, int rows, const std::uint16_t* b,
                          std::int64_t b_half, int depth, const Sums& c, Between& between) {
  product_by_depth<into, true>(a, a_depth, rows, b, 2 * b_half, depth, c, between);
}

}  // namespace fattn::host::FATTN_TARGET
