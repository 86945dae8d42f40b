// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

// wgmma: a product is issued by the 128 threads of a warpgroup and done at some time before they wait for it.
namespace fattn::emulated_gpu {

struct ProductShape {
  int n;
  bool bf16;
  bool a_in_registers;
  bool a_along_rows, b_along_rows;  // Major::mn
  bool operator==(const ProductShape&) const = default;
};

struct Product {
  ProductShape shape;
  std::uint64_t a, b;  // descriptors
  bool accumulate;
  int threads = 0;  // that have issued it
  std::array<float*, 128> sums{};
  std::array<std::array<std::uint32_t, 4>, 128> left{};

  void run() const;
};

// Of a warpgroup.
struct ProductQueue {
  std::deque<Product> waiting;
  int done = 0;  // products before the first that waits

  void run_complete(int until);
};

// Of a thread.
struct ProductMarks {
  int issued = 0;
  std::vector<int> commits;  // products issued before each commit
};

void issue_product(const ProductShape& shape, float* sums, const std::uint32_t* left, std::uint64_t a, std::uint64_t b,
                   bool accumulate);
void commit_products();
void wait_products(int groups);

}  // namespace fattn::emulated_gpu
