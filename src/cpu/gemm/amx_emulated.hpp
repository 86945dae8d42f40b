// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/vec/pairs_scalar.hpp"

namespace fattn::host::FATTN_TARGET {

inline constexpr int kBlockRows = 16;
inline constexpr int kPanel = 32;
inline constexpr bool kWholeTiles = true;
inline constexpr const char* kKernelText = "bf16 AMX in plain code, 16x32 kernel";

}  // namespace fattn::host::FATTN_TARGET

#include "cpu/gemm/pairs-inl.hpp"

namespace fattn::host::FATTN_TARGET {

inline Vec pairs_of_weights(Vec a, Vec b) { return integer_pairs_of(a, b); }

// Nothing to configure.
class Tiles {
 public:
  Tiles() {}
};

inline float flush(float x) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  return (bits & 0x7f800000u) == 0 ? __builtin_bit_cast(float, bits & 0x80000000u) : x;
}

// a * b + c of bf16 a, b with one rounding: the product is exact in double, and their sum is either exact there too or
// so lopsided that its rounding to double moves no rounding to float.
inline float multiply_add(float a, float b, float c) {
  const double exact = static_cast<double>(a) * static_cast<double>(b) + static_cast<double>(c);
  return flush(static_cast<float>(exact));
}

// The arithmetic of TDPBF16PS, bit for bit: of each tile of 32 elements the even and the odd ones are summed by
// multiply-adds from 0, then both sums together, then that to c; subnormals are 0 on the way in and out.
// left: where an element of the left side is.
template <Into into, class Left, class Between>
inline void product_of(const Left& left, int rows, const std::uint16_t* b, std::int64_t b_row, std::int64_t b_half,
                       int depth, const Sums& c, Between& between) {
  for (int block = 0; block < rows; block += kBlockRows) {
    for (int tile = 0; tile < depth; tile += kPairDepth) {
      for (int m = block; m < block + kBlockRows; ++m) {
        float even[kPanel] = {}, odd[kPanel] = {};
        for (int k = tile; k < tile + kPairDepth; k += 2) {
          std::uint16_t right[kPairRow];
          for (int half = 0; half < 2; ++half) {
            __builtin_memcpy(right + half * kPanel, b + k / 2 * b_row + half * b_half, sizeof right / 2);
          }
          const float left_even = flush(float_from_bf16(*left(m, k))),
                      left_odd = flush(float_from_bf16(*left(m, k + 1)));
          for (int n = 0; n < kPanel; ++n) {
            even[n] = multiply_add(left_even, flush(float_from_bf16(right[2 * n])), even[n]);
            odd[n] = multiply_add(left_odd, flush(float_from_bf16(right[2 * n + 1])), odd[n]);
          }
        }
        for (int n = 0; n < kPanel; ++n) {
          float& sum = c.at[m * c.row + lane_at(c.half, n)];
          if (into == Into::overwrite && tile == 0) sum = 0;
          sum = flush(flush(sum) + flush(even[n] + odd[n]));
        }
      }
      // After each tile instruction, as on AMX, so that what is woven meets the same memory.
      between.turn();
      between.turn();
    }
  }
}

template <Into into, class Between>
inline void product(const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                    std::int64_t b_stride, int depth, float* c, std::int64_t c_stride, Between& between) {
  const auto left = [&](int row, int k) { return a + row * a_stride + k; };
  product_of<into>(left, rows, b, b_stride, kPanel, depth, {c, c_stride, kHalfPanel}, between);
}
template <Into into, class Between>
inline void panel_product(const std::uint16_t* a, std::int64_t a_depth, int rows, const std::uint16_t* b,
                          std::int64_t b_half, int depth, const Sums& c, Between& between) {
  const auto left = [&](int row, int k) { return a + left_at(a_depth, row, k); };
  product_of<into>(left, rows, b, kPanel, 2 * b_half, depth, c, between);
}

}  // namespace fattn::host::FATTN_TARGET
