// SPDX-License-Identifier: Apache-2.0
#include "verify/tensor.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "fattn/problem.hpp"

namespace fattn::verify {
namespace {

TEST(Tensor, IsNaNUntilSet) {
  for (const DType dtype : {DType::fp64, DType::fp32, DType::bf16, DType::fp16, DType::e4m3}) {
    Tensor tensor("x", dtype, {2, 3, 1, 4});
    for (const double x : tensor.values()) EXPECT_TRUE(std::isnan(x)) << to_string(dtype);
    tensor.set_values(std::vector<double>(24, 1.5));
    for (const double x : tensor.values()) EXPECT_EQ(x, 1.5) << to_string(dtype);
  }
}

TEST(Tensor, RoundsOnceAlsoFromFp64) {
  Tensor tensor("x", DType::bf16, {1, 1, 1, 2});
  // A little above and below the middle of 1 and 1 + 2^-7: rounding to fp32 first would make both the middle.
  tensor.set_values({1 + 0x1p-8 + 0x1p-40, 1 + 0x1p-8 - 0x1p-40});
  EXPECT_EQ(tensor.values(), (std::vector<double>{1 + 0x1p-7, 1}));
}

TEST(Tensor, StridesPutElementsWhereTheySay) {
  Tensor tensor("x", DType::fp32, {2, 2, 1, 2}, {10, 3, 100, 1});
  tensor.set_values({1, 2, 3, 4, 5, 6, 7, 8});
  ASSERT_EQ(tensor.bytes().size(), 15 * sizeof(float));
  float last = 0;
  std::memcpy(&last, tensor.bytes().data() + 14 * sizeof(float), sizeof last);
  EXPECT_EQ(last, 8);
  EXPECT_EQ(tensor.values(), (std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(Tensor, SeesBytesInGaps) {
  Tensor tensor("x", DType::bf16, {1, 3, 1, 2}, {0, 5, 0, 1});
  EXPECT_TRUE(tensor.gaps_untouched());
  tensor.set_values({1, 2, 3, 4, 5, 6});
  EXPECT_TRUE(tensor.gaps_untouched());
  tensor.bytes()[2 * 3] = std::byte{0};
  EXPECT_FALSE(tensor.gaps_untouched());
}

TEST(Tensor, MayHaveNoElements) {
  Tensor tensor("x", DType::bf16, {2, 0, 3, 4});
  EXPECT_EQ(tensor.elements(), 0);
  EXPECT_TRUE(tensor.bytes().empty());
  EXPECT_NE(tensor.bytes().data(), nullptr);
  EXPECT_TRUE(tensor.gaps_untouched());
}

TEST(PlacedMemory, IsAlignedAsPromisedAndNoBetter) {
  for (const std::int64_t alignment : {1, 2, 4, 16, 128, 256, 1024, 4096}) {
    const PlacedMemory memory(cpu(1), 100, alignment);
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    EXPECT_EQ(address % static_cast<std::uintptr_t>(2 * alignment), static_cast<std::uintptr_t>(alignment));
  }
}

TEST(PlacedMemory, SeesWritesOnEitherSide) {
  PlacedMemory memory(cpu(1), 64, 16);
  std::byte* const data = static_cast<std::byte*>(memory.data());
  memory.fill(0);
  EXPECT_TRUE(memory.guards_intact());
  for (std::byte* const outside : {data - 1, data + 64, data - 1000, data + 1000}) {
    *outside = std::byte{0};
    EXPECT_FALSE(memory.guards_intact());
    *outside = std::byte{0xff};
    EXPECT_TRUE(memory.guards_intact());
  }
}

}  // namespace
}  // namespace fattn::verify
