// SPDX-License-Identifier: Apache-2.0
#include "emulated_gpu/products.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "algebra/rounding.hpp"
#include "emulated_gpu/threads.hpp"

namespace fattn::emulated_gpu {
namespace {

constexpr int kRows = 64, kDepth = 16;

float value(std::uint16_t bits, bool bf16) { return bf16 ? float_from_bf16(bits) : float_from_fp16(bits); }

// A descriptor of an operand with the 128-byte swizzle.
struct Operand {
  std::uint32_t start, leading, stride;  // bytes

  explicit Operand(std::uint64_t descriptor)
      : start(static_cast<std::uint32_t>(descriptor & 0x3FFF) << 4),
        leading(static_cast<std::uint32_t>(descriptor >> 16 & 0x3FFF) << 4),
        stride(static_cast<std::uint32_t>(descriptor >> 32 & 0x3FFF) << 4) {
    if (descriptor >> 62 != 1) fail("a descriptor of another swizzle than 128 bytes");
  }

  // Calls visit(other dimension, reduction, element) for all of them.
  template <class Visit>
  void each(int others, bool along_rows, bool bf16, Visit visit) const {
    const int rows = along_rows ? kDepth : others, columns = along_rows ? others : kDepth;
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j += 8) {  // 16 bytes
        const auto row = static_cast<std::uint32_t>(i), column = static_cast<std::uint32_t>(j);
        const std::uint32_t linear = start + row / 8 * stride + row % 8 * 128 + column / 64 * leading + column % 64 * 2;
        std::uint16_t bits[8];
        const std::uint32_t address = linear ^ (linear >> 3 & 0x70);
        std::memcpy(bits, shared_memory(address, sizeof bits), sizeof bits);
        // No failure: a kernel may multiply what it will not use.
        if (!fenced(address, sizeof bits)) std::fill_n(bits, 8, std::uint16_t{0x7FFF});  // NaN in both types
        for (int e = 0; e < 8; e++)
          along_rows ? visit(j + e, i, value(bits[e], bf16)) : visit(i, j + e, value(bits[e], bf16));
      }
  }
};

// A row of sums with a row of 16 products each, as tensor cores add (Fasi et al. 2021, "Numerical behavior of NVIDIA
// tensor cores"): all terms in units of 2^-24 of the power of two of the largest, cut off towards zero, and so is the
// sum.
void add_products(float* sums, const float (&left)[kDepth], const float (*right)[256], int columns) {
  float largest[256], to_units[256], unit[256], zero[256];
  std::int32_t total[256];
  for (int c = 0; c < columns; c++) {
    float most = std::fabs(sums[c]), nothing = sums[c] * 0.f;  // NaN where a term is NaN or infinite
    for (int k = 0; k < kDepth; k++) {
      most = std::max(most, std::fabs(left[k] * right[k][c]));
      nothing += left[k] * right[k][c] * 0.f;
    }
    largest[c] = most, zero[c] = nothing;
  }
  for (int c = 0; c < columns; c++) {
    const std::uint32_t exponent = std::max(std::bit_cast<std::uint32_t>(largest[c]) & 0x7F800000u, 32u << 23);
    unit[c] = std::bit_cast<float>(exponent - (24u << 23));
    to_units[c] = 1 / unit[c];
    total[c] = static_cast<std::int32_t>(sums[c] * to_units[c]);
  }
  for (int k = 0; k < kDepth; k++)
    for (int c = 0; c < columns; c++) total[c] += static_cast<std::int32_t>(left[k] * right[k][c] * to_units[c]);
  for (int c = 0; c < columns; c++) {
    if (zero[c] == 0.f) {
      // Up to 2^30: what fp32 does not hold is cut off too.
      const std::int32_t sign = total[c] < 0 ? -1 : 1, size = sign * total[c];
      const int lost = std::max(0, 8 - std::countl_zero(static_cast<std::uint32_t>(size)));
      sums[c] = static_cast<float>(sign * (size >> lost << lost)) * unit[c];
    } else {
      for (int k = 0; k < kDepth; k++) sums[c] += left[k] * right[k][c];
    }
  }
}

}  // namespace

// Thread t has rows 16 (t / 32) + t % 32 / 4 + 8 r; of them sums 4 i + 2 r + e are columns 8 i + 2 (t % 4) + e, and
// pair 2 h + r of the left operand columns 8 h + 2 (t % 4) and the next.
void Product::run() const {
  float left_operand[kRows][kDepth], right_operand[kDepth][256], result[kRows][256];
  if (shape.a_in_registers) {
    for (int t = 0; t < 128; t++)
      for (int pair = 0; pair < 4; pair++)
        for (int e = 0; e < 2; e++)
          left_operand[16 * (t / 32) + t % 32 / 4 + 8 * (pair % 2)][8 * (pair / 2) + 2 * (t % 4) + e] =
              value(static_cast<std::uint16_t>(left[t][pair] >> (16 * e)), shape.bf16);
  } else {
    Operand(a).each(kRows, shape.a_along_rows, shape.bf16,
                    [&](int row, int k, float element) { left_operand[row][k] = element; });
  }
  Operand(b).each(shape.n, shape.b_along_rows, shape.bf16,
                  [&](int column, int k, float element) { right_operand[k][column] = element; });

  const auto each_sum = [&](auto visit) {
    for (int t = 0; t < 128; t++)
      for (int i = 0; i < shape.n / 2; i++)
        visit(sums[t][i], result[16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2)][i / 4 * 8 + 2 * (t % 4) + i % 2]);
  };
  each_sum([&](float sum, float& to) { to = accumulate ? sum : 0.f; });
  for (int row = 0; row < kRows; row++) add_products(result[row], left_operand[row], right_operand, shape.n);
  each_sum([](float& sum, float from) { sum = from; });
}

void ProductQueue::run_complete(int until) {
  for (; done < until && !waiting.empty() && waiting.front().threads == 128; done++) {
    waiting.front().run();
    waiting.pop_front();
  }
}

void issue_product(const ProductShape& shape, float* sums, const std::uint32_t* left, std::uint64_t a, std::uint64_t b,
                   bool accumulate) {
  ProductQueue& queue = block().products[static_cast<std::size_t>(thread().index / 128)];
  const auto place = static_cast<std::size_t>(thread().products.issued++ - queue.done);
  if (place == queue.waiting.size()) queue.waiting.push_back({shape, a, b, accumulate});
  Product& product = queue.waiting.at(place);
  if (product.shape != shape || product.a != a || product.b != b || product.accumulate != accumulate)
    fail("the threads of a warpgroup issue different products");
  const auto t = static_cast<std::size_t>(thread().index % 128);
  product.sums[t] = sums;
  if (left != nullptr) std::memcpy(product.left[t].data(), left, sizeof product.left[t]);
  product.threads++;
  if (chance(512)) queue.run_complete(thread().products.issued);
}

void commit_products() {
  meet_warp("wgmma.commit_group", {});
  thread().products.commits.push_back(thread().products.issued);
}

void wait_products(int groups) {
  ProductQueue& queue = block().products[static_cast<std::size_t>(thread().index / 128)];
  const std::vector<int>& commits = thread().products.commits;
  const int last = static_cast<int>(commits.size()) - 1 - groups;
  const int target = last < 0 ? 0 : commits[static_cast<std::size_t>(last)];
  wait("wgmma.wait_group", [&] {
    queue.run_complete(target);
    return queue.done >= target;
  });
  meet_warp("wgmma.wait_group", {});
}

}  // namespace fattn::emulated_gpu
