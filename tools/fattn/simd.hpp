// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

// The two loops of the tool that need wide instructions. simd_x86_64.cpp or simd_plain.cpp: the build picks.
namespace fattn::tool {

// What multiplies in a kernel.
enum class CpuUnit : std::uint8_t {
  fp32,        // fused multiply-adds, the widest there are
  bf16_pairs,  // AVX512_BF16
  bf16_tiles,  // AMX
};
inline CpuUnit cpu_unit(std::string_view kernel) {
  if (kernel.starts_with("cpu_avx512_bf16_")) return CpuUnit::bf16_pairs;
  return kernel == "cpu_amx_forward" || kernel == "cpu_amx_backward" ? CpuUnit::bf16_tiles : CpuUnit::fp32;
}

// What it reaches here and now on that many threads; empty without AVX2. About 2 ms. The processor has the unit.
std::optional<double> cpu_peak_tflops(int threads, CpuUnit unit = CpuUnit::fp32);

// c[rows, columns] = a[rows, inner] * b[inner, columns], row-major with these distances between rows.
struct Product {
  const float* a;
  const float* b;
  float* c;
  std::int64_t a_stride, b_stride, c_stride;
  std::int64_t rows, inner, columns;
};
void multiply(const Product& product);

// The same without any particular instructions; also for what is left at the edges.
inline void multiply_plain(const Product& p) {
  for (std::int64_t i = 0; i < p.rows; ++i) {
    float* const c = p.c + i * p.c_stride;
    for (std::int64_t j = 0; j < p.columns; ++j) c[j] = 0;
    for (std::int64_t l = 0; l < p.inner; ++l) {
      const float a = p.a[i * p.a_stride + l];
      const float* const b = p.b + l * p.b_stride;
      for (std::int64_t j = 0; j < p.columns; ++j) c[j] += a * b[j];
    }
  }
}

}  // namespace fattn::tool
