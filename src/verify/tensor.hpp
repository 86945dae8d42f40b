// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fattn/device.hpp"
#include "fattn/tensor.hpp"

namespace fattn::verify {

using Index4 = std::array<std::int64_t, 4>;

Index4 contiguous(const Index4& extents);

// Floating-point data in host memory, of any strides. New storage is all 0xff bytes, a NaN in every format: elements
// that nobody sets show when they are read.
class Tensor {
 public:
  Tensor(std::string name, DType dtype, const Index4& extents, const Index4& strides);
  Tensor(std::string name, DType dtype, const Index4& extents)
      : Tensor(std::move(name), dtype, extents, contiguous(extents)) {}

  const std::string& name() const { return name_; }
  DType dtype() const { return dtype_; }
  const Index4& extents() const { return extents_; }
  std::int64_t rows() const { return extents_[0] * extents_[1] * extents_[2]; }
  std::int64_t row_elements() const { return extents_[3]; }
  std::int64_t elements() const { return rows() * row_elements(); }
  std::vector<std::byte>& bytes() { return bytes_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  // Row r of the first three dimensions, in order; set_row rounds to nearest even.
  void get_row(std::int64_t row, double* values) const;
  void set_row(std::int64_t row, const double* values);
  std::vector<double> values() const;  // all elements in logical order
  void set_values(const std::vector<double>& values);

  Tensor converted(DType dtype) const;  // the same values, contiguous; elements that are NaN stay NaN

  // True when all bytes that belong to no element are still 0xff.
  bool gaps_untouched() const;

 private:
  std::int64_t offset(std::int64_t row) const;

  std::string name_;
  DType dtype_;
  Index4 extents_, strides_;
  std::vector<std::byte> bytes_;
};

// Memory that a plan's device reads or writes, CPU or CUDA, between guard zones of 0xff bytes. Its address is a
// multiple of `alignment` and of nothing larger, so that a kernel that counts on more than the promise shows.
class PlacedMemory {
 public:
  PlacedMemory(const Device& device, std::size_t bytes, std::int64_t alignment);
  ~PlacedMemory();
  PlacedMemory(const PlacedMemory&) = delete;
  PlacedMemory& operator=(const PlacedMemory&) = delete;

  void* data() const { return data_; }
  void upload(const void* from);
  void fill(int byte);
  std::vector<std::byte> download() const;
  bool guards_intact() const;

 private:
  std::vector<std::byte> read(const std::byte* from, std::size_t bytes) const;

  DeviceKind kind_;
  int device_;
  std::size_t bytes_, guard_;
  std::byte* block_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t block_bytes_ = 0, block_alignment_ = 0;
};

}  // namespace fattn::verify
