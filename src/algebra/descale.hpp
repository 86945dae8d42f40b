// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "algebra/host_device.hpp"

namespace fattn {

// The factors that turn the e4m3 values of one operand back into real ones: [1], [batch, heads] or
// [batch, heads, blocks of rows]. No data: the values are real already.
struct Descales {
  const float* data = nullptr;
  std::int64_t batch_stride = 0;
  std::int64_t head_stride = 0;
  int block = 0;  // rows of a sequence that share a factor; 0: all

  FATTN_HD float factor(std::int64_t batch, std::int64_t head, int row) const {
    if (data == nullptr) return 1;
    return data[batch * batch_stride + head * head_stride + (block > 0 ? row / block : 0)];
  }
};

}  // namespace fattn
