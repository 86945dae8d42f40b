// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/vec/pairs_scalar.hpp"

namespace fattn::host::FATTN_TARGET {

inline constexpr int kBlockRows = 16;
inline constexpr int kPanel = 32;
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
template <Into into, class Between>
inline void product(const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                    std::int64_t b_stride, int depth, float* c, std::int64_t c_stride, Between&) {
  for (int m = 0; m < rows; ++m) {
    float* const sum = c + m * c_stride;
    if (into == Into::overwrite) __builtin_memset(sum, 0, kPanel * sizeof(float));
    for (int tile = 0; tile < depth; tile += kPairDepth) {
      float even[kPanel] = {}, odd[kPanel] = {};
      for (int k = tile; k < tile + kPairDepth; k += 2) {
        std::uint16_t left[2], right[kPairRow];
        __builtin_memcpy(left, a + m * a_stride + k, sizeof left);
        __builtin_memcpy(right, b + k / 2 * b_stride, sizeof right);
        const float left_even = flush(float_from_bf16(left[0])), left_odd = flush(float_from_bf16(left[1]));
        for (int n = 0; n < kPanel; ++n) {
          even[n] = multiply_add(left_even, flush(float_from_bf16(right[2 * n])), even[n]);
          odd[n] = multiply_add(left_odd, flush(float_from_bf16(right[2 * n + 1])), odd[n]);
        }
      }
      for (int n = 0; n < kPanel; ++n) sum[n] = flush(flush(sum[n]) + flush(even[n] + odd[n]));
    }
  }
}

}  // namespace fattn::host::FATTN_TARGET
