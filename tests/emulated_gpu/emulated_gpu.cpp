// SPDX-License-Identifier: Apache-2.0
// Does the emulated GPU do what the hardware does, and does it notice what must not be done?
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "cuda/ptx/address.cuh"
#include "cuda/ptx/bulk.cuh"
#include "cuda/ptx/fence.cuh"
#include "cuda/ptx/matrix.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/named_barrier.cuh"
#include "cuda/ptx/shared.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/tile/fragment.cuh"
#include "cuda/tile/swizzle.cuh"
#include "emulated_gpu/language.hpp"

namespace fattn::gpu {
namespace {

using Element = ptx::Bf16;
using Tile = tile::SwizzledTile<64, 128>;

void run_block(unsigned threads, const std::function<void()>& kernel, std::size_t shared_bytes = 128 * 1024) {
  emulated_gpu::run_grid(dim3(1), dim3(threads), shared_bytes, kernel);
}

// Small integers, exact in every type and sum here.
std::vector<float> integers(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(static_cast<int>(random() % 9) - 4);
  return values;
}

// By the threads of a warpgroup: a row-major matrix of 64 x 128 into a swizzled tile.
void fill_tile(std::uint32_t to, const std::vector<float>& values) {
  for (unsigned at = threadIdx.x; at < 64 * 64; at += 128) {
    const int row = static_cast<int>(at) / 64, column = static_cast<int>(at) % 64 * 2;
    const std::size_t from = static_cast<std::size_t>(row) * 128 + static_cast<std::size_t>(column);
    ptx::store_shared(to + static_cast<std::uint32_t>(Tile::chunk(row, column / 8)) + column % 8 * 2,
                      ptx::pack<Element>(values[from], values[from + 1]));
  }
  ptx::fence_proxy_async();
  __syncthreads();
}

template <int n, class Expected>
void expect_accumulator(const float (&sums)[n / 2], Expected expected) {
  const int lane = static_cast<int>(threadIdx.x % 32), first = static_cast<int>(threadIdx.x / 32) * 16 + lane / 4;
  for (int i = 0; i < n / 2; i++)
    EXPECT_EQ(sums[i], expected(first + i / 2 % 2 * 8, i / 4 * 8 + 2 * (lane % 4) + i % 2)) << threadIdx.x << " " << i;
}

float at(const std::vector<float>& values, int row, int column) {
  return values[static_cast<std::size_t>(row) * 128 + static_cast<std::size_t>(column)];
}

TEST(EmulatedGpu, ProductAlongColumns) {
  const std::vector<float> a = integers(64 * 128, 1), b = integers(64 * 128, 2);
  run_block(128, [&] {
    fill_tile(0, a), fill_tile(Tile::kBytes, b);
    float sums[32];
    for (int step = 0; step < 8; step++)
      ptx::wgmma<Element, 64, ptx::Major::k, ptx::Major::k>(sums, Tile::along_columns(0, step),
                                                            Tile::along_columns(Tile::kBytes, step), step != 0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    expect_accumulator<64>(sums, [&](int row, int column) {
      float sum = 0;
      for (int k = 0; k < 128; k++) sum += at(a, row, k) * at(b, column, k);
      return sum;
    });
  });
}

TEST(EmulatedGpu, ProductAlongRowsWithTheLeftOperandInRegisters) {
  const std::vector<float> a = integers(64 * 128, 3), b = integers(64 * 128, 4);
  run_block(128, [&] {
    fill_tile(0, a), fill_tile(Tile::kBytes, b);
    std::uint32_t left[32];
    tile::load_operand<64, 128>(left, 0, 16 * static_cast<int>(threadIdx.x / 32));
    float sums[64];
    for (float& sum : sums) sum = 1.f;
    for (int step = 0; step < 4; step++)
      ptx::wgmma<Element, 128, ptx::Major::mn>(sums, left + 4 * step, Tile::along_rows(Tile::kBytes, step), 1);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    expect_accumulator<128>(sums, [&](int row, int column) {
      float sum = 1;
      for (int k = 0; k < 64; k++) sum += at(a, row, k) * at(b, k, column);
      return sum;
    });
  });
}

TEST(EmulatedGpu, AnAccumulatorStoredIsLoadedAsAnOperand) {
  run_block(128, [&] {
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    float values[64];
    for (int i = 0; i < 64; i++) {
      const int row = 16 * warp + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + 2 * (lane % 4) + i % 2;
      values[i] = static_cast<float>((row * 3 + column) % 200);
    }
    tile::store_accumulator<Element, 64, 128>(values, 0, 16 * warp);
    std::uint32_t operand[32], expected[32];
    tile::load_operand<64, 128>(operand, 0, 16 * warp);
    tile::round_to_operand<Element>(expected, values);
    for (int i = 0; i < 32; i++) EXPECT_EQ(operand[i], expected[i]);
  });
}

TEST(EmulatedGpu, AMatrixIsTransposedOnItsWay) {
  run_block(32, [&] {
    const std::uint32_t lane = threadIdx.x, four[4] = {lane << 17 | lane << 1, 0, 0, 0};
    ptx::stmatrix_trans(lane * 16, four);
    // Lane 4 r + q held elements (r, 2 q) and (r, 2 q + 1): they lie in column r now.
    __syncwarp();
    if (lane < 8)
      for (std::uint32_t row = 0; row < 8; row++) {
        std::uint16_t element;
        std::memcpy(&element, ptx::dynamic_shared() + row * 16 + lane * 2, 2);
        EXPECT_EQ(element, (4 * lane + row / 2) << 1);
      }
  });
}

TEST(EmulatedGpu, AProductOfWhatWasNotFencedIsNaN) {
  run_block(128, [&] {
    fill_tile(0, integers(64 * 128, 5));
    if (threadIdx.x == 7) ptx::store_shared(static_cast<std::uint32_t>(Tile::chunk(3, 0)), 0);
    __syncthreads();
    float sums[32];
    ptx::wgmma<Element, 64, ptx::Major::k, ptx::Major::k>(sums, Tile::along_columns(0, 0), Tile::along_columns(0, 0),
                                                          0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    // Row 3 and column 3 of the product; the thread's first sum is in column 2 (t % 4).
    const int row = static_cast<int>(threadIdx.x / 32) * 16 + static_cast<int>(threadIdx.x % 32) / 4;
    EXPECT_EQ(std::isnan(sums[0]), row == 3);
    EXPECT_EQ(std::isnan(sums[1]), row == 3 || threadIdx.x % 4 == 1);
  });
}

// A tensor of 3 rows of 72 columns, in device memory.
class Boxes : public testing::Test {
 protected:
  Boxes() {
    cudaMalloc(reinterpret_cast<void**>(&data_), kBytes);
    for (int i = 0; i < 3 * 72; i++) data_[i] = static_cast<std::uint16_t>(i + 1);
    map_ = encode(data_, 72);
  }
  ~Boxes() override { cudaFree(data_); }

  static CUtensorMap encode(std::uint16_t* data, cuuint64_t columns) {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
    const cuuint64_t extents[5] = {columns, 3, 1, 1, 1}, strides[4] = {144, 16, 16, 16};
    const cuuint32_t box[5] = {64, 8, 1, 1, 1}, every[5] = {1, 1, 1, 1, 1};
    CUtensorMap map{};
    EXPECT_EQ(reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
                  &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, data, extents, strides, box, every,
                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
              CUDA_SUCCESS);
    return map;
  }
  // One thread loads the box of eight rows from (column, row) to 0 of shared memory.
  static void load(const CUtensorMap& map, int column, int row) {
    constexpr std::uint32_t barrier = 2048;
    ptx::mbarrier_init(barrier, 1);
    ptx::mbarrier_arrive_expect(barrier, 1024);
    ptx::tma_load(0, &map, barrier, {{column, row, 0, 0, 0}});
    ptx::mbarrier_wait(barrier, 0);
  }

  static constexpr std::size_t kBytes = 3 * 72 * 2;
  std::uint16_t* data_ = nullptr;
  CUtensorMap map_{};
};

std::uint16_t element(int row, int column) {
  std::uint16_t value;
  std::memcpy(&value, ptx::dynamic_shared() + tile::SwizzledTile<8, 64>::chunk(row, column / 8) + column % 8 * 2, 2);
  return value;
}

TEST_F(Boxes, LoadsFillWithZerosAndStoresLeaveOut) {
  run_block(1, [&] {
    load(map_, 64, 1);
    for (int row = 0; row < 8; row++)
      for (int column = 0; column < 64; column++)
        EXPECT_EQ(element(row, column), row < 2 && column < 8 ? 72 * (row + 1) + 64 + column + 1 : 0);
    std::memset(ptx::dynamic_shared(), 0x11, 1024);
    ptx::tma_store(&map_, 0, {{64, 2, 0, 0, 0}});
    ptx::tma_store_commit();
    ptx::tma_store_wait<0>();
  });
  for (int i = 0; i < 3 * 72; i++) EXPECT_EQ(data_[i], i >= 2 * 72 + 64 ? 0x1111 : i + 1);
}

TEST_F(Boxes, ALoadMayComeAsLateAsItsWait) {
  int late = 0;
  for (int round = 0; round < 50; round++)
    run_block(1, [&] {
      constexpr std::uint32_t barrier = 2048;
      ptx::mbarrier_init(barrier, 1);
      ptx::mbarrier_arrive_expect(barrier, 1024);
      ptx::tma_load(0, &map_, barrier, {{0, 0, 0, 0, 0}});
      late += element(0, 0) != 1;
      ptx::mbarrier_wait(barrier, 0);
      EXPECT_EQ(element(0, 0), 1);
    });
  EXPECT_GT(late, 0);
}

TEST_F(Boxes, AStoreMayReadAsLateAsItsWait) {
  run_block(1, [&] {
    std::memset(ptx::dynamic_shared(), 0x11, 1024);
    ptx::tma_store(&map_, 0, {{0, 0, 0, 0, 0}});
    ptx::tma_store_commit();
    std::memset(ptx::dynamic_shared(), 0x22, 1024);  // too early
    ptx::tma_store_wait_read<0>();
  });
  EXPECT_EQ(data_[0], 0x2222);
}

using EmulatedGpuDeathTest = Boxes;

TEST_F(EmulatedGpuDeathTest, WhatMustNotBeDone) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(run_block(64, [] { ptx::named_barrier_sync(1, 128); }), "every thread waits.*named barrier");
  EXPECT_DEATH(run_block(1,
                         [] {
                           ptx::mbarrier_init(0, 1);
                           ptx::mbarrier_wait(0, 0);
                         }),
               "every thread waits");
  EXPECT_DEATH(run_block(1,
                         [] {
                           ptx::mbarrier_init(0, 1);
                           ptx::mbarrier_arrive_expect(0, 16);
                           ptx::mbarrier_arrive(0);
                         }),
               "one arrival more");
  EXPECT_DEATH(run_block(32, [] { threadIdx.x == 5 ? __syncwarp() : ptx::wgmma_fence(); }), "a warp is at");
  EXPECT_DEATH(run_block(
                   1, [] { ptx::store_shared(1024, 1); }, 1024),
               "the block has 1024");
  EXPECT_DEATH(run_block(1,
                         [&] {
                           ptx::tma_store(&map_, 0, {{0, 0, 0, 0, 0}});
                           ptx::tma_store_commit();
                         }),
               "before its stores had read");
  // Told of more columns than there are: the last row ends in a page that may not be touched.
  EXPECT_DEATH(run_block(1, [&] { load(encode(data_ + 128, 72), 0, 0); }), "");
}

}  // namespace
}  // namespace fattn::gpu
