// SPDX-License-Identifier: Apache-2.0
#include "simd.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "fattn/device.hpp"

namespace fattn::tool {
namespace {

TEST(Multiply, GivesThePlainProductForEverySize) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const int rows : {1, 5, 6, 13}) {
    for (const int columns : {1, 15, 16, 33}) {
      for (const int inner : {0, 1, 7}) {
        const int a_stride = inner + 2, b_stride = columns + 3, c_stride = columns + 1;
        std::vector<float> a(static_cast<std::size_t>(rows * a_stride)),
            b(static_cast<std::size_t>((inner + 1) * b_stride));
        for (float& value : a) value = normal(random);
        for (float& value : b) value = normal(random);
        std::vector<float> fast(static_cast<std::size_t>(rows * c_stride), 42.0F), plain = fast;
        Product product{a.data(), b.data(), fast.data(), a_stride, b_stride, c_stride, rows, inner, columns};
        multiply(product);
        product.c = plain.data();
        multiply_plain(product);
        for (std::size_t i = 0; i < fast.size(); ++i) ASSERT_NEAR(fast[i], plain[i], 1e-5) << rows << ' ' << columns;
        ASSERT_EQ(fast[static_cast<std::size_t>(columns)], 42.0F) << "wrote between rows";
      }
    }
  }
}

TEST(CpuPeak, IsThereWithAvx2) {
  const auto peak = cpu_peak_tflops(1);
  ASSERT_EQ(peak.has_value(), cpu().avx2);
  if (peak) {
    EXPECT_GT(*peak, 1e-4);
    EXPECT_LT(*peak, 1);
  }
}

TEST(CpuPeak, UnitsOfBf16AreFaster) {
  EXPECT_EQ(cpu_unit("cpu_avx2_forward"), CpuUnit::fp32);
  EXPECT_EQ(cpu_unit("cpu_amx_emulated_forward"), CpuUnit::fp32);
  EXPECT_EQ(cpu_unit("cpu_avx512_bf16_backward"), CpuUnit::bf16_pairs);
  EXPECT_EQ(cpu_unit("cpu_amx_forward"), CpuUnit::bf16_tiles);
  if (!cpu().avx512_bf16) GTEST_SKIP() << "this machine has no AVX512_BF16";
  EXPECT_GT(cpu_peak_tflops(1, CpuUnit::bf16_pairs), 1e-3);
}

}  // namespace
}  // namespace fattn::tool
