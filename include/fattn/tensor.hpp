// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace fattn {

enum class DType : std::uint8_t { fp64, fp32, bf16, fp16, e4m3 };

constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::fp64: return 8;
    case DType::fp32: return 4;
    case DType::bf16:
    case DType::fp16: return 2;
    case DType::e4m3: return 1;
  }
  return 0;
}

// Strides in elements of a tensor [batch, seqlen, heads, head_dim]. A packed tensor is [total, heads, head_dim] and
// ignores `batch`. `dim` is 1, except for dout, where 0 is accepted too (an expanded gradient).
struct Strides {
  std::int64_t batch = 0;
  std::int64_t seqlen = 0;
  std::int64_t head = 0;
  std::int64_t dim = 1;
  friend bool operator==(const Strides&, const Strides&) = default;
};

}  // namespace fattn
