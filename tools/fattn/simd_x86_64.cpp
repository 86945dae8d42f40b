// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <chrono>
#include <thread>
#include <vector>

#include "fattn/device.hpp"
#include "simd.hpp"

// Functions with this mark are called only after the processor was asked.
#define FATTN_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define FATTN_TARGET_AVX512 __attribute__((target("avx512f")))

namespace fattn::tool {

namespace {

constexpr int kChains = 12;  // enough independent sums to hide the latency of two pipes
constexpr std::int64_t kSteps = 1'000'000;
constexpr double kFlopsPerLane = 2.0 * kChains;  // of a step

// Named sums, not an array: GCC would keep an array in memory.
FATTN_TARGET_AVX2 float multiply_add(std::int64_t steps) {
  const __m256 factor = _mm256_set1_ps(0.999999F), term = _mm256_set1_ps(1e-6F);
  __m256 a = term, b = term, c = term, d = term, e = term, f = term;
  __m256 g = term, h = term, i = term, j = term, k = term, l = term;
  const auto add = [ factor, term ](__m256 & sum) FATTN_TARGET_AVX2 __attribute__((always_inline)) {
    sum = _mm256_fmadd_ps(sum, factor, term);
  };
  for (std::int64_t step = 0; step < steps; ++step) {
    add(a), add(b), add(c), add(d), add(e), add(f), add(g), add(h), add(i), add(j), add(k), add(l);
    asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f));  // each step is needed
    asm volatile("" : "+x"(g), "+x"(h), "+x"(i), "+x"(j), "+x"(k), "+x"(l));
  }
  float lanes[8];
  _mm256_storeu_ps(lanes, a + b + c + d + e + f + g + h + i + j + k + l);
  return lanes[0] + lanes[7];
}

FATTN_TARGET_AVX512 float multiply_add_wide(std::int64_t steps) {
  const __m512 factor = _mm512_set1_ps(0.999999F), term = _mm512_set1_ps(1e-6F);
  __m512 a = term, b = term, c = term, d = term, e = term, f = term;
  __m512 g = term, h = term, i = term, j = term, k = term, l = term;
  const auto add = [ factor, term ](__m512 & sum) FATTN_TARGET_AVX512 __attribute__((always_inline)) {
    sum = _mm512_fmadd_ps(sum, factor, term);
  };
  for (std::int64_t step = 0; step < steps; ++step) {
    add(a), add(b), add(c), add(d), add(e), add(f), add(g), add(h), add(i), add(j), add(k), add(l);
    asm volatile("" : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f));
    asm volatile("" : "+v"(g), "+v"(h), "+v"(i), "+v"(j), "+v"(k), "+v"(l));
  }
  float lanes[16];
  _mm512_storeu_ps(lanes, a + b + c + d + e + f + g + h + i + j + k + l);
  return lanes[0] + lanes[15];
}

double thread_tflops() {
  const bool wide = cpu().avx512;
  const auto loop = wide ? multiply_add_wide : multiply_add;
  volatile float sink = loop(kSteps / 20);
  const auto begin = std::chrono::steady_clock::now();
  sink = loop(kSteps);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  static_cast<void>(sink);
  return kFlopsPerLane * (wide ? 16 : 8) * static_cast<double>(kSteps) / seconds / 1e12;
}

constexpr int kRows = 6, kColumns = 16;  // 12 sums, 2 columns and 1 factor fill the 16 registers

// One row of a block of the result.
struct BlockRow {
  __m256 left, right;

  FATTN_TARGET_AVX2 __attribute__((always_inline)) void add(const float* a, __m256 b_left, __m256 b_right) {
    const __m256 factor = _mm256_broadcast_ss(a);
    left = _mm256_fmadd_ps(factor, b_left, left);
    right = _mm256_fmadd_ps(factor, b_right, right);
  }
  FATTN_TARGET_AVX2 __attribute__((always_inline)) void store(float* c) const {
    _mm256_storeu_ps(c, left);
    _mm256_storeu_ps(c + 8, right);
  }
};

FATTN_TARGET_AVX2 void multiply_block(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride,
                                      float* c, std::int64_t c_stride, std::int64_t inner) {
  const BlockRow zero{_mm256_setzero_ps(), _mm256_setzero_ps()};
  BlockRow r0 = zero, r1 = zero, r2 = zero, r3 = zero, r4 = zero, r5 = zero;
  for (std::int64_t l = 0; l < inner; ++l, ++a, b += b_stride) {
    const __m256 left = _mm256_loadu_ps(b), right = _mm256_loadu_ps(b + 8);
    r0.add(a, left, right);
    r1.add(a + a_stride, left, right);
    r2.add(a + 2 * a_stride, left, right);
    r3.add(a + 3 * a_stride, left, right);
    r4.add(a + 4 * a_stride, left, right);
    r5.add(a + 5 * a_stride, left, right);
  }
  r0.store(c);
  r1.store(c + c_stride);
  r2.store(c + 2 * c_stride);
  r3.store(c + 3 * c_stride);
  r4.store(c + 4 * c_stride);
  r5.store(c + 5 * c_stride);
}

}  // namespace

std::optional<double> cpu_peak_tflops(int threads) {
  if (!cpu().avx2) return std::nullopt;
  std::vector<double> rates(static_cast<std::size_t>(threads));
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < rates.size(); ++i) others.emplace_back([&rates, i] { rates[i] = thread_tflops(); });
  rates[0] = thread_tflops();
  for (std::thread& each : others) each.join();
  double total = 0;
  for (const double rate : rates) total += rate;
  return total;
}

void multiply(const Product& p) {
  if (!cpu().avx2) return multiply_plain(p);
  const std::int64_t rows = p.rows / kRows * kRows, columns = p.columns / kColumns * kColumns;
  for (std::int64_t j = 0; j < columns; j += kColumns) {
    for (std::int64_t i = 0; i < rows; i += kRows) {
      multiply_block(p.a + i * p.a_stride, p.a_stride, p.b + j, p.b_stride, p.c + i * p.c_stride + j, p.c_stride,
                     p.inner);
    }
  }
  Product right = p;  // all rows of the columns that are left
  right.b += columns;
  right.c += columns;
  right.columns = p.columns - columns;
  right.rows = rows;
  multiply_plain(right);
  Product below = p;
  below.a += rows * p.a_stride;
  below.c += rows * p.c_stride;
  below.rows = p.rows - rows;
  multiply_plain(below);
}

}  // namespace fattn::tool
