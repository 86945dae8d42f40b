// SPDX-License-Identifier: Apache-2.0
// The targets that multiply bf16 in pairs, beside plain loops and each other.
#include "cpu/pair_kernels.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "algebra/rounding.hpp"
#include "fattn/fattn.hpp"

namespace fattn::host {
namespace {

using Elements = std::vector<std::uint16_t>;

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

Elements random_bf16(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Elements values(size(count));
  for (std::uint16_t& value : values) value = bf16_from_float(normal(random));
  return values;
}

// Whether a plan may use the row here; for AMX this also asks the system for the tiles.
bool usable(const std::string& row) {
  try {
    plan(parse_problem("fwd sq8 sk8 d64 bf16"), cpu(1), row);
    return true;
  } catch (const Error&) {
    return false;
  }
}

class PairKernelTest : public testing::TestWithParam<const PairKernels*> {
 protected:
  void SetUp() override {
    if (GetParam() == &kAvx512PairKernels && !usable("cpu_avx512_bf16_forward")) GTEST_SKIP() << "no AVX512_BF16";
    if (GetParam() == &kAmxPairKernels && !usable("cpu_amx_forward")) GTEST_SKIP() << "NO AMX: its tiles did not run";
  }
  const PairKernels& pairs() const { return *GetParam(); }
};

// Products of small integers are exact, so any order of summation gives the same.
TEST_P(PairKernelTest, ProductsAreRight) {
  std::mt19937 random(5);
  const auto integer = [&] { return static_cast<float>(static_cast<int>(random() % 17) - 8); };
  for (const int depth : {32, 64, 96, 160}) {
    for (const int rows : {pairs().block_rows, 3 * pairs().block_rows, 48, 96}) {
      for (const bool add : {false, true}) {
        const std::int64_t a_stride = depth + 8, b_stride = 96, c_stride = 40;
        Elements a(size(rows * a_stride)), b(size(depth / 2 * b_stride));
        for (std::uint16_t& each : a) each = bf16_from_float(integer());
        for (std::uint16_t& each : b) each = bf16_from_float(integer());
        std::vector<float> c(size(rows * c_stride)), old;
        for (float& each : c) each = integer();
        old = c;
        pairs().product(add, a.data(), a_stride, rows, b.data(), b_stride, depth, c.data(), c_stride);
        for (int m = 0; m < rows; ++m) {
          for (int n = 0; n < c_stride; ++n) {
            float expected = add || n >= 32 ? old[size(m * c_stride + n)] : 0;
            for (int k = 0; k < depth && n < 32; ++k) {
              expected += float_from_bf16(a[size(m * a_stride + k)]) *
                          float_from_bf16(b[size(k / 2 * b_stride + 2 * n + k % 2)]);
            }
            ASSERT_EQ(c[size(m * c_stride + n)], expected) << m << ", " << n << " of " << rows << ", depth " << depth;
          }
        }
      }
    }
  }
}

// Where operands lie changes no bit: panels beside products of rows.
TEST_P(PairKernelTest, PanelsAreRowsInAnotherOrder) {
  for (const int depth : {32, 64, 96, 160}) {
    for (const int rows : {32, 48, 96}) {
      const Elements a = random_bf16(rows * depth, 11), b = random_bf16(32 * depth, 12);
      Elements a_turned(a.size()), b_turned(b.size()), b_pairs(b.size());
      for (int row = 0; row < rows; ++row) {
        for (int k = 0; k < depth; ++k) a_turned[size(k * rows + row)] = a[size(row * depth + k)];
      }
      for (int row = 0; row < 32; ++row) {
        for (int k = 0; k < depth; ++k) b_turned[size(k * 32 + row)] = b[size(row * depth + k)];
      }
      pairs().pack_pairs_of_columns(b.data(), depth, depth, b_pairs.data());
      for (const bool add : {false, true}) {
        std::vector<float> expected(size(rows * 32), 0.25f);
        pairs().product(add, a.data(), depth, rows, b_pairs.data(), 64, depth, expected.data(), 32);
        for (const bool turned : {false, true}) {
          for (const bool paired : {false, true}) {
            if (turned && rows % 32 != 0) continue;  // whole tiles of columns
            std::vector<float> c(size(rows * 32), 0.25f), sums(c.size());
            Elements left(a.size()), right(b.size());
            pairs().panel_product(add, turned ? a_turned.data() : a.data(), turned, rows,
                                  paired ? b_turned.data() : b.data(), paired, depth, c.data(), left.data(),
                                  right.data(), sums.data());
            ASSERT_EQ(c, expected) << rows << " rows, depth " << depth << (turned ? ", turned" : "")
                                   << (paired ? ", paired" : "");
          }
        }
      }
    }
  }
}

TEST_P(PairKernelTest, PacksWhereTheProductsLook) {
  const int rows = 64, columns = 96;
  const std::int64_t stride = 100;
  const Elements matrix = random_bf16(rows * stride, 1);
  const auto at = [&](int row, int column) { return matrix[size(row * stride + column)]; };

  Elements panel(size(32 * columns));
  pairs().pack_pairs_of_columns(matrix.data(), stride, columns, panel.data());
  for (int row = 0; row < 32; ++row) {
    for (int column = 0; column < columns; ++column) {
      ASSERT_EQ(panel[size((column / 2 * 32 + row) * 2 + column % 2)], at(row, column)) << row << ", " << column;
    }
  }
  const std::int64_t step = 96 * 32;
  Elements of_rows(size(columns / 32 * step));
  pairs().pack_pairs_of_rows(matrix.data(), stride, rows, columns, step, of_rows.data());
  Elements transposed(size(columns * std::int64_t{rows}));
  pairs().pack_columns(matrix.data(), stride, rows, columns, transposed.data(), rows);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      ASSERT_EQ(of_rows[size(column / 32 * step + (row / 2 * 32 + column % 32) * 2 + row % 2)], at(row, column));
      ASSERT_EQ(transposed[size(column * rows + row)], at(row, column));
    }
  }
}

TEST_P(PairKernelTest, CopiesPadsAndLeavesOut) {
  const Elements matrix = random_bf16(5 * 20, 2);
  const auto keep = std::make_unique<bool[]>(5);
  for (int row = 0; row < 5; ++row) keep[size(row)] = row != 2;
  for (const std::int64_t step : {1, 0}) {
    Elements out(32 * 32, 0xffff);
    pairs().copy_rows({matrix.data(), DType::bf16, 20, step, 5, 19, keep.get()}, 32, 32, out.data());
    for (int row = 0; row < 32; ++row) {
      for (int column = 0; column < 32; ++column) {
        const bool inside = row < 5 && column < 19 && row != 2;
        ASSERT_EQ(out[size(row * 32 + column)], inside ? matrix[size(row * 20 + column * step)] : 0);
      }
    }
  }
}

TEST_P(PairKernelTest, RoundsToNearestEven) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  const int rows = 64, columns = 96;
  std::vector<float> values(size(rows * columns));
  for (float& value : values) value = normal(random);
  for (int i = 0; i < columns; ++i)
    values[size(i)] = detail::float_of(0x3f808000u + 0x8000u * static_cast<unsigned>(i));
  const auto at = [&](int row, int column) { return bf16_from_float(values[size(row * columns + column)]); };
  Elements by_rows(size(rows * columns)), by_columns(size(rows * columns));
  pairs().round_rows(values.data(), columns, rows, columns, by_rows.data());
  pairs().round_columns(values.data(), columns, rows, columns, by_columns.data(), rows);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      ASSERT_EQ(by_rows[size(row * columns + column)], at(row, column)) << row << ", " << column;
      ASSERT_EQ(by_columns[size(column * rows + row)], at(row, column)) << row << ", " << column;
    }
  }
}

// To the nearest, either way where two are: within half a unit, in the order of pairs, and what bf16 holds stays.
TEST_P(PairKernelTest, WeightsAreRoundedToTheNearest) {
  std::mt19937 random(11);
  const int count = 4096;
  std::vector<float> values[2];
  for (std::vector<float>& side : values) {
    for (int i = 0; i < count; ++i) {
      const unsigned exponent = 1 + static_cast<unsigned>(random()) % 134, mantissa = static_cast<unsigned>(random());
      const unsigned kinds[] = {mantissa & 0x7fffff, 0x8000, 0x18000, 0x7f0000, 0x7fffff, 0x7f7fff};
      side.push_back(detail::float_of(exponent << 23 | kinds[i % 6]));
    }
    side[0] = 0, side[1] = 1, side[2] = 256;
  }
  Elements pairs_out(size(2 * count));
  pairs().weights(values[0].data(), values[1].data(), count, pairs_out.data());
  for (int i = 0; i < 2 * count; ++i) {
    const float exact = values[i % 2][size(i / 2)], rounded = float_from_bf16(pairs_out[size(i)]);
    const float nearest = float_from_bf16(bf16_from_float(exact));
    ASSERT_EQ(std::fabs(rounded - exact), std::fabs(nearest - exact)) << exact << " became " << rounded;
  }
}

TEST_P(PairKernelTest, WeightsAreExact) {
  std::vector<float> x = {0, -0.0f, -INFINITY, -1000, NAN, -1e-9f, 1e-9f, -126, -130, 99.5f};
  for (int i = -126; i < 64; ++i) x.push_back(static_cast<float>(i));
  std::mt19937 random(13);
  std::uniform_real_distribution<float> any(-126, 60), near(-2, 1);
  while (x.size() < (1u << 18)) x.push_back(x.size() % 2 == 0 ? any(random) : near(random));
  std::vector<float> y = x;
  pairs().exp2_of_weights(y.data(), static_cast<int>(y.size()));
  EXPECT_TRUE(std::isnan(y[4]));
  EXPECT_EQ(y[8], 0x1p-130f);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i == 4 || i == 8) continue;
    const double exact = x[i] < -200 ? 0 : std::exp2(static_cast<double>(x[i]));
    const double off = x[i] == std::floor(x[i]) ? 0 : 2.2e-7 * exact;
    ASSERT_LE(std::fabs(static_cast<double>(y[i]) - exact), off) << x[i];
  }
}

std::string kernels_name(const testing::TestParamInfo<const PairKernels*>& tested) {
  constexpr const char* kNames[] = {"amx_emulated", "avx512_bf16", "amx"};
  return kNames[tested.index];
}

INSTANTIATE_TEST_SUITE_P(Targets, PairKernelTest,
                         testing::Values(&kEmulatedPairKernels, &kAvx512PairKernels, &kAmxPairKernels), kernels_name);

// The plain code is the processor's arithmetic, bit for bit: random values, random bits (subnormals, huge ones), sums
// that cancel.
TEST(AmxEmulation, IsBitExact) {
  if (!usable("cpu_amx_forward")) GTEST_SKIP() << "NO AMX: the emulation was compared with nothing";
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const int rows = 32, depth = round % 2 == 0 ? 32 : 128;
    Elements a(size(rows * depth)), b(size(depth * 32));
    for (Elements* side : {&a, &b}) {
      for (std::uint16_t& each : *side) {
        each = static_cast<std::uint16_t>(random());
        if (round % 4 != 3) each = bf16_from_float(std::ldexp(static_cast<float>(each & 0xff) - 127.5f, each >> 13));
        if ((each & 0x7f80) > 0x5f00) each &= 0xbfff;  // no Inf, no NaN
      }
    }
    std::vector<float> c(size(rows * 32));
    for (float& each : c) each = static_cast<float>(random() % 2001) / 300 - 3;
    std::vector<float> expected = c;
    kEmulatedPairKernels.product(round % 3 != 0, a.data(), depth, rows, b.data(), 64, depth, expected.data(), 32);
    kAmxPairKernels.product(round % 3 != 0, a.data(), depth, rows, b.data(), 64, depth, c.data(), 32);
    int wrong = 0;
    for (std::size_t i = 0; i < c.size(); ++i) wrong += std::memcmp(&c[i], &expected[i], sizeof(float)) != 0;
    ASSERT_EQ(wrong, 0) << round;
  }
}

// One of each kind whose result can be said: chains of even and odd elements, from zero, flushed.
TEST(AmxEmulation, OrderAndSubnormals) {
  Elements a(16 * 32), b(32 * 32);
  std::vector<float> c(16 * 32, 0x1p-130f);
  const auto set = [&](int k, float left, float right) {
    a[size(k)] = bf16_from_float(left);
    b[size(k / 2 * 64 + k % 2)] = bf16_from_float(right);
  };
  // Even: 2^30 + 2^-10 - 2^30 loses the small one; odd keeps its own.
  set(0, 0x1p15f, 0x1p15f), set(2, 0x1p-5f, 0x1p-5f), set(4, -0x1p15f, 0x1p15f), set(1, 3, 5);
  set(3, 0x1p-127f, 0x1p20f);  // a subnormal is 0
  kEmulatedPairKernels.product(true, a.data(), 32, 16, b.data(), 64, 32, c.data(), 32);
  EXPECT_EQ(c[0], 15.0f);
  EXPECT_EQ(c[1], 0.0f) << "a subnormal sum is 0";
}

}  // namespace
}  // namespace fattn::host
