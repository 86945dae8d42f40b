// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/common/varlen.hpp"
#include "fattn/device.hpp"
#include "fattn/tensor.hpp"

// Joins what several blocks found for the same query rows, each over its part of the keys (algebra/softmax_state.hpp).
namespace fattn::gpu {

// No part has this log-sum-exp: it says that the row is written as one without keys, whatever the sink.
inline constexpr float kUncounted = __builtin_inff();

struct MergeParams {
  const float* partial_o;    // [splits][rows][columns], each divided by its own sum
  const float* partial_lse;  // [splits][rows], natural logarithm; kUncounted: a row that does not count
  int splits;
  std::int64_t rows;  // as lse is laid out
  int columns;        // a multiple of 8
  int heads;
  std::int64_t rows_per_head;  // seqlen_q, or total_q when packed
  bool packed;
  void* o;
  DType dtype;  // bf16 or fp16
  std::int64_t o_batch, o_row, o_head;
  float* lse;          // or null
  const float* sinks;  // [heads] or null
};

void load_merge(const Device& device);
void merge_splits(const MergeParams& params, cudaStream_t stream);

}  // namespace fattn::gpu
