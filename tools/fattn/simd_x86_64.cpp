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
#define FATTN_TARGET_PAIRS __attribute__((target("avx512f,avx512bf16")))
#define FATTN_TARGET_TILES __attribute__((target("amx-tile,amx-bf16")))

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

FATTN_TARGET_PAIRS float multiply_add_pairs(std::int64_t steps) {
  const __m512bh pair = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-3F), _mm512_set1_ps(1e-3F));
  __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
  const auto add = [pair](__m512 & sum) FATTN_TARGET_PAIRS __attribute__((always_inline)) {
    sum = _mm512_dpbf16_ps(sum, pair, pair);
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

// Tiles of zeros multiply no faster than others. A plan for these rows has asked the system for the tiles before.
FATTN_TARGET_TILES float multiply_add_tiles(std::int64_t steps) {
  alignas(64) std::uint8_t config[64] = {1};
  for (int tile = 0; tile < 8; ++tile) {
    config[16 + 2 * tile] = 64;
    config[48 + tile] = 16;
  }
  asm volatile("" : : "r"(config) : "memory");
  _tile_loadconfig(config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  for (std::int64_t step = 0; step < steps; ++step) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 6);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 6);
  }
  _tile_release();
  return 0;
}

struct Loop {
  float (*run)(std::int64_t steps);
  double flops_per_step;
  std::int64_t steps;  // about 2 ms
};

Loop loop_of(CpuUnit unit) {
  if (unit == CpuUnit::bf16_tiles) return {multiply_add_tiles, 4 * 2.0 * 16 * 16 * 32, kSteps / 20};
  if (unit == CpuUnit::bf16_pairs) return {multiply_add_pairs, 2 * 16 * kFlopsPerLane, kSteps};
  if (cpu().avx512) return {multiply_add_wide, 16 * kFlopsPerLane, kSteps};
  return {multiply_add, 8 * kFlopsPerLane, kSteps};
}

double thread_tflops(const Loop& loop) {
  volatile float sink = loop.run(loop.steps / 20);
  const auto begin = std::chrono::steady_clock::now();
  sink = loop.run(loop.steps);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  static_cast<void>(sink);
  return loop.flops_per_step * static_cast<double>(loop.steps) / seconds / 1e12;
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

std::optional<double> cpu_peak_tflops(int threads, CpuUnit unit) {
  if (!cpu().avx2) return std::nullopt;
  const Loop loop = loop_of(unit);
  std::vector<double> rates(static_cast<std::size_t>(threads));
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < rates.size(); ++i)
    others.emplace_back([&rates, &loop, i] { rates[i] = thread_tflops(loop); });
  rates[0] = thread_tflops(loop);
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
