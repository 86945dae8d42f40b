// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/vec/pairs_avx512.hpp"

namespace fattn::host::FATTN_TARGET {

// Rows of a left side come in fours; as many as twelve are multiplied at a time.
inline constexpr int kBlockRows = 4;
inline constexpr int kPanel = 32;
inline constexpr bool kWholeTiles = false;
inline constexpr const char* kKernelText = "bf16 AVX-512 dot products, 12x32 kernel";

}  // namespace fattn::host::FATTN_TARGET

#include "cpu/gemm/pairs-inl.hpp"

namespace fattn::host::FATTN_TARGET {

inline Vec pairs_of_weights(Vec a, Vec b) { return pairs_of(a, b); }

// Nothing to configure.
class Tiles {
 public:
  Tiles() {}
};

// c[m][n] (+)= sum over k of a[m][k] b[k][n]; rows: a multiple of 4, depth: of kPairDepth.
template <Into into, int count>
inline void product_block(const std::uint16_t* a, std::int64_t a_stride, const std::uint16_t* b, std::int64_t b_stride,
                          int depth, float* c, std::int64_t c_stride) {
  __m512 sum[count][2];
  FATTN_UNROLL(16)
  for (int i = 0; i < count; ++i) {
    sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    // Sums of the backward pass lie beyond the second cache; the product hides their way.
    if (into == Into::add) {
      _mm_prefetch(reinterpret_cast<const char*>(c + i * c_stride), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(c + i * c_stride + 16), _MM_HINT_T0);
    }
  }
  FATTN_UNROLL(4)
  for (int k = 0; k < depth; k += 2, b += b_stride) {
    const __m512i left = _mm512_loadu_si512(b), right = _mm512_loadu_si512(b + 32);
    FATTN_UNROLL(16)
    for (int i = 0; i < count; ++i) {
      int pair;
      __builtin_memcpy(&pair, a + i * a_stride + k, sizeof pair);
      const __m512i x = _mm512_set1_epi32(pair);
      sum[i][0] = _mm512_dpbf16_ps(sum[i][0], (__m512bh)x, (__m512bh)left);
      sum[i][1] = _mm512_dpbf16_ps(sum[i][1], (__m512bh)x, (__m512bh)right);
    }
  }
  FATTN_UNROLL(16)
  for (int i = 0; i < count; ++i) {
    FATTN_UNROLL(2)
    for (int j = 0; j < 2; ++j) {
      float* const to = c + i * c_stride + 16 * j;
      _mm512_storeu_ps(to, into == Into::add ? _mm512_add_ps(_mm512_loadu_ps(to), sum[i][j]) : sum[i][j]);
    }
  }
}

template <Into into, class Between>
inline void product(const std::uint16_t* a, std::int64_t a_stride, int rows, const std::uint16_t* b,
                    std::int64_t b_stride, int depth, float* c, std::int64_t c_stride, Between&) {
  int m = 0;
  for (; m + 12 <= rows; m += 12) {
    product_block<into, 12>(a + m * a_stride, a_stride, b, b_stride, depth, c + m * c_stride, c_stride);
  }
  for (; m + 8 <= rows; m += 8) {
    product_block<into, 8>(a + m * a_stride, a_stride, b, b_stride, depth, c + m * c_stride, c_stride);
  }
  for (; m < rows; m += 4) {
    product_block<into, 4>(a + m * a_stride, a_stride, b, b_stride, depth, c + m * c_stride, c_stride);
  }
}

template <Into into, class Between>
inline void panel_product(const std::uint16_t* a, std::int64_t a_depth, int rows, const std::uint16_t* b, std::int64_t,
                          int depth, const Sums& c, Between& between) {
  product<into>(a, a_depth, rows, b, kPairRow, depth, c.at, c.row, between);
}

}  // namespace fattn::host::FATTN_TARGET
