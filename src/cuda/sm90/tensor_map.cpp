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

// The library does not link the driver: its encoder is asked for by name.
decltype(&cuTensorMapEncodeTiled) encoder() {
  static const auto function = [] {
    void* address = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &address, 12000, cudaEnableDefault, &found),
          "cudaGetDriverEntryPointByVersion");
    if (found != cudaDriverEntryPointSuccess || address == nullptr)
      throw Error(Status::device_error,
                  "the CUDA driver has no cuTensorMapEncodeTiled; nearest: a driver for CUDA 12.0");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(address);
  }();
  return function;
}

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

void load_encoder() { encoder(); }

namespace {

// Extents, strides and box in elements, innermost dimension first.
CUtensorMap encode_map(const void* data, DType dtype, const TensorShape& tensor, const cuuint64_t (&extents)[5],
                       const cuuint64_t (&strides)[4], const cuuint32_t (&box)[5]) {
  const cuuint32_t every[5] = {1, 1, 1, 1, 1};
  const CUtensorMapDataType type =
      dtype == DType::fp16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  CUtensorMap map{};
  const CUresult result =
      encoder()(&map, type, 5, const_cast<void*>(data), extents, strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Error(
        Status::device_error,
        fmt::format("cuTensorMapEncodeTiled: error {} for rows {} x {}, heads {} x {}, batch {} x {} (elements)",
                    static_cast<int>(result), tensor.rows, tensor.strides.seqlen, tensor.heads, tensor.strides.head,
                    tensor.batch, tensor.strides.batch));
  return map;
}

// In bytes; a stride that is never taken may be anything.
cuuint64_t stride_of(std::int64_t extent, std::int64_t elements) {
  return static_cast<cuuint64_t>(extent > 1 ? 2 * elements : 16);
}

cuuint64_t extent_of(std::int64_t value) { return static_cast<cuuint64_t>(value); }

}  // namespace

CUtensorMap encode(const void* data, DType dtype, const TensorShape& tensor, int box_rows, int group) {
  return encode_map(
      data, dtype, tensor,
      {extent_of(tensor.columns), extent_of(group), extent_of(tensor.rows), extent_of(tensor.heads / group),
       extent_of(tensor.batch)},
      {stride_of(group, tensor.strides.head), stride_of(tensor.rows, tensor.strides.seqlen),
       stride_of(tensor.heads / group, tensor.strides.head * group), stride_of(tensor.batch, tensor.strides.batch)},
      {64, static_cast<cuuint32_t>(group), static_cast<cuuint32_t>(box_rows / group), 1, 1});
}

CUtensorMap encode_ragged(const void* data, DType dtype, const TensorShape& tensor, int box_rows) {
  const cuuint64_t row = stride_of(tensor.rows, tensor.strides.seqlen);
  return encode_map(
      static_cast<const char*>(data) - box_rows * row, dtype, tensor,
      {extent_of(tensor.columns), extent_of(box_rows), extent_of(tensor.rows + 1), extent_of(tensor.heads),
       extent_of(tensor.batch)},
      {row, row, stride_of(tensor.heads, tensor.strides.head), stride_of(tensor.batch, tensor.strides.batch)},
      {64, static_cast<cuuint32_t>(box_rows), 1, 1, 1});
}

}  // namespace fattn::gpu::sm90
