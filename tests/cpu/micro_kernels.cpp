// SPDX-License-Identifier: Apache-2.0
// The vector layer, the elementary functions and the micro-kernels of each target, beside plain loops.
#include "cpu/micro_kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "algebra/rounding.hpp"
#include "fattn/device.hpp"

namespace fattn::host {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

float rounded(DType dtype, float x) {
  if (dtype == DType::bf16) return float_from_bf16(bf16_from_float(x));
  if (dtype == DType::fp16) return float_from_fp16(fp16_from_float(x));
  return x;
}

// The values stored as the dtype, element by element.
std::vector<std::byte> stored(DType dtype, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * static_cast<std::size_t>(size_of(dtype)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t half = dtype == DType::bf16 ? bf16_from_float(values[i]) : fp16_from_float(values[i]);
    if (dtype == DType::fp32) {
      std::memcpy(&bytes[4 * i], &values[i], 4);
    } else {
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  return bytes;
}

// Distance from the exact value in units of the last place of its fp32 rounding; subnormals have a fixed unit.
double ulps(float value, double exact) {
  const double magnitude = std::fabs(exact);
  const double unit = magnitude < 0x1p-126 ? 0x1p-149 : std::ldexp(1.0, std::ilogb(magnitude) - 23);
  return std::fabs(static_cast<double>(value) - exact) / unit;
}

// Every so many-th float from `from` down to `to`, both of one sign, in order of magnitude.
std::vector<float> floats_between(float from, float to, std::uint32_t step) {
  std::vector<float> values;
  for (std::uint32_t bits = detail::bits_of(from); bits <= detail::bits_of(to); bits += step) {
    values.push_back(detail::float_of(bits));
  }
  return values;
}

class MicroKernelTest : public testing::TestWithParam<const MicroKernels*> {
 protected:
  void SetUp() override {
    if (GetParam() == &kAvx2MicroKernels && !cpu().avx2) GTEST_SKIP() << "this machine has no AVX2";
    if (GetParam() == &kAvx512MicroKernels && !cpu().avx512) GTEST_SKIP() << "this machine has no AVX-512";
  }
  const MicroKernels& micro() const { return *GetParam(); }
};

// Without fused multiply-adds the polynomial rounds twice as often.
TEST_P(MicroKernelTest, Exp2WithinOneUlp) {
  for (const auto& [from, to] : {std::pair{1e-12f, 100.9f}, std::pair{-1e-12f, -150.9f}}) {
    const std::vector<float> x = floats_between(from, to, 211);
    ASSERT_GT(x.size(), 1'000'000u);
    std::vector<float> y(x.size());
    micro().exp2(x.data(), y.data(), static_cast<int>(x.size()));
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      worst = std::max(worst, ulps(y[i], std::exp2(static_cast<double>(x[i]))));
    EXPECT_LE(worst, micro().lanes > 1 ? 1.0 : 1.25);
  }
}

TEST_P(MicroKernelTest, Exp2Edges) {
  const std::vector<float> x = {0, -0.0f, 1, -1, -126, -149, -152, -1e30f, -kInf, 101, 150, kInf, kNan};
  std::vector<float> y(x.size());
  micro().exp2(x.data(), y.data(), static_cast<int>(x.size()));
  const float top = 0x1p101f;
  const std::vector<float> expected = {1, 1, 2, 0.5f, 0x1p-126f, 0x1p-149f, 0, 0, 0, top, top, top};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(y[i], expected[i]) << x[i];
  EXPECT_TRUE(std::isnan(y.back()));
}

TEST_P(MicroKernelTest, TanhWithinTwoUlp) {
  std::vector<float> x = floats_between(1e-20f, 20.0f, 331);
  const std::size_t positive = x.size();
  ASSERT_GT(positive, 1'000'000u);
  for (std::size_t i = 0; i < positive; ++i) x.push_back(-x[i]);
  std::vector<float> y(x.size());
  micro().tanh(x.data(), y.data(), static_cast<int>(x.size()));
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, ulps(y[i], std::tanh(static_cast<double>(x[i]))));
  EXPECT_LE(worst, 2.0);
}

TEST_P(MicroKernelTest, TanhEdges) {
  const std::vector<float> x = {0, 1e30f, -1e30f, kInf, -kInf, kNan};
  std::vector<float> y(x.size());
  micro().tanh(x.data(), y.data(), static_cast<int>(x.size()));
  const std::vector<float> expected = {0, 1, -1, 1, -1};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(y[i], expected[i]) << x[i];
  EXPECT_TRUE(std::isnan(y.back()));
}

// Rounding is that of algebra/rounding.hpp, bit for bit, for every upper half and for halves of every kind below.
TEST_P(MicroKernelTest, RoundsLikeTheAlgebra) {
  std::vector<float> x;
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const std::uint32_t lower : {0u, 1u, 0x0fffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(detail::float_of(upper << 16 | lower));
    }
  }
  const int count = static_cast<int>(x.size());
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16}) {
    std::vector<float> y(x.size());
    micro().round_as(dtype, x.data(), y.data(), count);
    std::vector<std::byte> bytes(x.size() * static_cast<std::size_t>(size_of(dtype)));
    micro().store_row(dtype, x.data(), 1.0f, count, bytes.data());
    const std::vector<std::byte> expected_bytes = stored(dtype, x);
    int wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float expected = rounded(dtype, x[i]);
      if (std::isnan(x[i])) {
        wrong += !std::isnan(y[i]);
      } else {
        wrong += detail::bits_of(y[i]) != detail::bits_of(expected);
        const auto size = static_cast<std::size_t>(size_of(dtype));
        wrong += std::memcmp(&bytes[i * size], &expected_bytes[i * size], size) != 0;
      }
    }
    EXPECT_EQ(wrong, 0) << static_cast<int>(dtype);
  }
}

struct Matrix {
  int rows, columns;
  std::vector<float> values;
  float at(int row, int column) const { return values[static_cast<std::size_t>(row * columns + column)]; }
};

Matrix random_matrix(int rows, int columns, unsigned seed) {
  return {rows, columns, random_values(static_cast<std::size_t>(rows * columns), seed)};
}

TEST_P(MicroKernelTest, PacksWidensPadsAndLeavesOut) {
  const int panel = micro().panel, block = micro().block_rows;
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16}) {
    for (const auto& [rows, columns] : {std::pair{1, 1}, std::pair{5, 19}, std::pair{20, 33}, std::pair{33, 64}}) {
      for (const std::int64_t step : {1, 0}) {
        const Matrix matrix = random_matrix(rows, columns, 3);
        const std::vector<std::byte> memory = stored(dtype, matrix.values);
        const auto keep = std::make_unique<bool[]>(static_cast<std::size_t>(rows));
        for (int row = 0; row < rows; ++row) keep[static_cast<std::size_t>(row)] = row % 3 != 1;
        const RowsSource source{memory.data(), dtype, columns, step, rows, columns, keep.get()};
        const auto expected = [&](int row, int column) {
          if (row >= rows || column >= columns || row % 3 == 1) return 0.0f;
          return rounded(dtype, matrix.at(row, step == 0 ? 0 : column));
        };

        const int capacity = (rows + block - 1) / block * block, panels = (columns + panel - 1) / panel;
        std::vector<float> packed(static_cast<std::size_t>(panels * capacity * panel), kNan);
        micro().pack_panels(source, capacity, packed.data());
        for (int row = 0; row < capacity; ++row) {
          for (int column = 0; column < panels * panel; ++column) {
            // A repeated column is repeated over the padding too; nobody looks at it there.
            if (step == 0 && column >= columns) continue;
            const float value =
                packed[static_cast<std::size_t>((column / panel * capacity + row) * panel + column % panel)];
            ASSERT_EQ(value, expected(row, column)) << row << ", " << column;
          }
        }

        const int row_panels = (rows + panel - 1) / panel;
        std::vector<float> transposed(static_cast<std::size_t>(row_panels * columns * panel + panel), kNan);
        micro().pack_transposed(source, transposed.data());
        for (int row = 0; row < row_panels * panel; ++row) {
          for (int column = 0; column < columns; ++column) {
            const float value =
                transposed[static_cast<std::size_t>((row / panel * columns + column) * panel + row % panel)];
            ASSERT_EQ(value, expected(row, column)) << row << ", " << column;
          }
        }
        EXPECT_TRUE(std::isnan(transposed.back())) << "wrote past the last panel";
      }
    }
  }
}

// Products of small integers are exact, so any order of summation gives the same.
Matrix integers(int rows, int columns, unsigned seed) {
  std::mt19937 random(seed);
  Matrix matrix{rows, columns, std::vector<float>(static_cast<std::size_t>(rows * columns))};
  for (float& value : matrix.values) value = static_cast<float>(static_cast<int>(random() % 17) - 8);
  return matrix;
}

TEST_P(MicroKernelTest, ProductsAreRight) {
  const int panel = micro().panel, block = micro().block_rows;
  for (const int depth : {1, 7, 15, 16, 17, 48, 100}) {
    for (const int rows : {1, block, block + 1, 5 * block}) {
      const int padded = (rows + block - 1) / block * block, depth_panels = (depth + panel - 1) / panel;
      const Matrix a = integers(padded, depth, 1), b = integers(depth, panel, 2), old = integers(padded, panel, 3);
      // By rows, in panels as pack_panels leaves them, and plain.
      std::vector<float> by_panels(static_cast<std::size_t>(depth_panels * padded * panel), kNan);
      std::vector<float> by_columns(static_cast<std::size_t>(depth * padded));
      for (int row = 0; row < padded; ++row) {
        for (int k = 0; k < depth; ++k) {
          by_panels[static_cast<std::size_t>((k / panel * padded + row) * panel + k % panel)] = a.at(row, k);
          by_columns[static_cast<std::size_t>(k * padded + row)] = a.at(row, k);
        }
      }
      const auto product = [&](int row, int column) {
        float sum = 0;
        for (int k = 0; k < depth; ++k) sum += a.at(row, k) * b.at(k, column);
        return sum;
      };
      std::vector<float> factor(static_cast<std::size_t>(padded));
      for (int row = 0; row < padded; ++row) factor[static_cast<std::size_t>(row)] = static_cast<float>(row % 4);

      std::vector<float> c1 = old.values, c2 = old.values, c3 = old.values, c4 = old.values, c5 = old.values;
      micro().qk(false, by_panels.data(), panel, padded * panel, rows, b.values.data(), depth, c1.data(), panel);
      micro().qk(true, by_panels.data(), panel, padded * panel, rows, b.values.data(), depth, c2.data(), panel);
      micro().qk(true, a.values.data(), depth, panel, rows, b.values.data(), depth, c3.data(), panel);
      micro().pv(by_columns.data(), padded, rows, b.values.data(), depth, nullptr, c4.data(), panel);
      micro().pv(by_columns.data(), padded, rows, b.values.data(), depth, factor.data(), c5.data(), panel);
      for (int row = 0; row < rows; ++row) {
        for (int column = 0; column < panel; ++column) {
          const auto at = static_cast<std::size_t>(row * panel + column);
          const float p = product(row, column), before = old.values[at];
          ASSERT_EQ(c1[at], p);
          ASSERT_EQ(c2[at], before + p);
          ASSERT_EQ(c3[at], before + p);
          ASSERT_EQ(c4[at], before + p);
          ASSERT_EQ(c5[at], before * factor[static_cast<std::size_t>(row)] + p);
        }
      }
    }
  }
}

std::string target_name(const testing::TestParamInfo<const MicroKernels*>& tested) {
  constexpr const char* kNames[] = {"scalar", "avx2", "avx512"};
  return kNames[tested.index];
}

INSTANTIATE_TEST_SUITE_P(Targets, MicroKernelTest,
                         testing::Values(&kScalarMicroKernels, &kAvx2MicroKernels, &kAvx512MicroKernels), target_name);

}  // namespace
}  // namespace fattn::host
