// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/tensor_map.hpp"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "cuda/launch.hpp"
#include "fattn/error.hpp"

namespace fattn::gpu::sm90 {
namespace {

constexpr std::int64_t kStep = 8;                       // elements: strides are multiples of 16 bytes
constexpr std::int64_t kLimit = std::int64_t{1} << 39;  // elements: and below 2^40 bytes

// The library does not link the driver: its functions are asked for by name.
template <class Function>
Function driver_function(const char* name) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check(cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &found),
        "cudaGetDriverEntryPointByVersion");
  if (found != cudaDriverEntryPointSuccess || address == nullptr)
    throw Error(Status::device_error, fmt::format("the CUDA driver has no {}; nearest: a driver for CUDA 12.0", name));
  return reinterpret_cast<Function>(address);
}

auto encoder() {
  static const auto function = driver_function<decltype(&cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  return function;
}

auto address_replacer() {
  static const auto function = driver_function<decltype(&cuTensorMapReplaceAddress)>("cuTensorMapReplaceAddress");
  return function;
}

struct Dimension {
  std::int64_t extent;
  std::int64_t stride;  // elements; of the first it is 1
  int box;
};

CUtensorMap encode(const void* data, DType dtype, const TensorShape& tensor, const Dimension (&dimensions)[5]) {
  cuuint64_t extents[5], strides[5];
  cuuint32_t box[5];
  for (int i = 0; i < 5; i++) {
    const auto& [extent, stride, width] = dimensions[i];
    extents[i] = static_cast<cuuint64_t>(extent);
    strides[i] = static_cast<cuuint64_t>(extent > 1 ? 2 * stride : 16);  // one that is never taken may be anything
    box[i] = static_cast<cuuint32_t>(width);
  }
  const cuuint32_t every[5] = {1, 1, 1, 1, 1};
  const CUtensorMapDataType type =
      dtype == DType::fp16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  CUtensorMap map{};
  const CUresult result =
      encoder()(&map, type, 5, const_cast<void*>(data), extents, strides + 1, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Error(
        Status::device_error,
        fmt::format("cuTensorMapEncodeTiled: error {} for rows {} x {}, heads {} x {}, batch {} x {} (elements)",
                    static_cast<int>(result), tensor.rows, tensor.strides.seqlen, tensor.heads, tensor.strides.head,
                    tensor.batch, tensor.strides.batch));
  return map;
}

// Of one row the stride may be anything, and a ragged map takes it all the same.
std::int64_t ragged_step(const TensorShape& tensor) { return tensor.rows > 1 ? tensor.strides.seqlen : kStep; }

}  // namespace

std::string decline_strides(std::string_view name, const TensorShape& tensor) {
  const struct {
    const char* dimension;
    std::int64_t extent, stride;
  } steps[] = {{"batch", tensor.batch, tensor.strides.batch},
               {"seqlen", tensor.rows, tensor.strides.seqlen},
               {"head", tensor.heads, tensor.strides.head}};
  for (const auto& [dimension, extent, stride] : steps) {
    if (extent <= 1) continue;  // never taken
    if (stride % kStep != 0)
      return fmt::format("strides.{}.{} = {}: this row has multiples of {} (16 bytes); nearest: {}", name, dimension,
                         stride, kStep, (stride + kStep - 1) / kStep * kStep);
    if (stride >= kLimit)
      return fmt::format("strides.{}.{} = {}: this row has less than 2^39", name, dimension, stride);
  }
  return {};
}

void load_encoder() { encoder(), address_replacer(); }

void point_at(CUtensorMap& map, const void* data) {
  const CUresult result = address_replacer()(&map, const_cast<void*>(data));
  if (result != CUDA_SUCCESS)
    throw Error(Status::device_error,
                fmt::format("cuTensorMapReplaceAddress: error {} for {}", static_cast<int>(result), data));
}

CUtensorMap encode(const void* data, DType dtype, const TensorShape& tensor, int box_rows, int group) {
  const auto& [batch, rows, heads, columns, strides] = tensor;
  return encode(data, dtype, tensor,
                {{columns, 1, 64},
                 {group, strides.head, group},
                 {rows, strides.seqlen, box_rows / group},
                 {heads / group, strides.head * group, 1},
                 {batch, strides.batch, 1}});
}

CUtensorMap encode_slices(const void* data, DType dtype, const TensorShape& tensor, int box_rows, int box_slices) {
  const auto& [batch, rows, heads, columns, strides] = tensor;
  return encode(data, dtype, tensor,
                {{64, 1, 64},
                 {rows, strides.seqlen, box_rows},
                 {columns / 64, 64, box_slices},
                 {heads, strides.head, 1},
                 {batch, strides.batch, 1}});
}

CUtensorMap encode_ragged(const void* data, DType dtype, const TensorShape& tensor, int box_rows) {
  const auto& [batch, rows, heads, columns, strides] = tensor;
  const std::int64_t row = ragged_step(tensor);
  return encode(static_cast<const char*>(data) + ragged_begin(tensor, box_rows, 1), dtype, tensor,
                {{columns, 1, 64},
                 {box_rows, row, box_rows},
                 {rows + 1, row, 1},
                 {heads, strides.head, 1},
                 {batch, strides.batch, 1}});
}

std::int64_t ragged_begin(const TensorShape& tensor, int box_rows, int group) {
  return -2 * (box_rows / group) * ragged_step(tensor);
}

CUtensorMap encode_ragged(const void* data, DType dtype, const TensorShape& tensor, int box_rows, int group) {
  const auto& [batch, rows, heads, columns, strides] = tensor;
  const std::int64_t row = ragged_step(tensor);
  const int positions = box_rows / group;
  return encode(data, dtype, tensor,
                {{columns, 1, 64},
                 {group, strides.head, group},
                 {positions, row, positions},
                 {rows + 1, row, 1},
                 {heads / group, strides.head * group, 1}});
}

}  // namespace fattn::gpu::sm90
