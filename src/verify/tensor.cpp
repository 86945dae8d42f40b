// SPDX-License-Identifier: Apache-2.0
#include "verify/tensor.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "algebra/rounding.hpp"
#include "verify/device_memory.hpp"

namespace fattn::verify {
namespace {

constexpr std::byte kUntouched{0xff};

template <class T>
T read_as(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

double read_element(DType dtype, const std::byte* from) {
  switch (dtype) {
    case DType::fp64: return read_as<double>(from);
    case DType::fp32: return static_cast<double>(read_as<float>(from));
    case DType::bf16: return static_cast<double>(float_from_bf16(read_as<std::uint16_t>(from)));
    case DType::fp16: return static_cast<double>(float_from_fp16(read_as<std::uint16_t>(from)));
    case DType::e4m3: return static_cast<double>(float_from_e4m3(read_as<std::uint8_t>(from)));
  }
  return 0;
}

void write_element(DType dtype, std::byte* to, double value) {
  const auto put = [to](auto element) { std::memcpy(to, &element, sizeof element); };
  switch (dtype) {
    case DType::fp64: return put(value);
    case DType::fp32: return put(static_cast<float>(value));
    case DType::bf16: return put(bf16_from_float(round_to_odd(value)));
    case DType::fp16: return put(fp16_from_float(round_to_odd(value)));
    case DType::e4m3: return put(e4m3_from_float(round_to_odd(value)));
  }
}

bool all_untouched(const std::byte* from, std::size_t bytes) {
  return std::all_of(from, from + bytes, [](std::byte byte) { return byte == kUntouched; });
}

}  // namespace

Index4 contiguous(const Index4& extents) {
  return {extents[1] * extents[2] * extents[3], extents[2] * extents[3], extents[3], 1};
}

Tensor::Tensor(std::string name, DType dtype, const Index4& extents, const Index4& strides)
    : name_(std::move(name)), dtype_(dtype), extents_(extents), strides_(strides) {
  std::int64_t span = 1;
  for (int i = 0; i < 4; ++i) span += (extents[i] - 1) * strides[i];
  if (elements() == 0) span = 0;
  bytes_.reserve(64);  // an address even for no element
  bytes_.assign(static_cast<std::size_t>(span * size_of(dtype)), kUntouched);
}

std::int64_t Tensor::offset(std::int64_t row) const {
  const std::int64_t i2 = row % extents_[2], i1 = row / extents_[2] % extents_[1], i0 = row / extents_[2] / extents_[1];
  return i0 * strides_[0] + i1 * strides_[1] + i2 * strides_[2];
}

void Tensor::get_row(std::int64_t row, double* values) const {
  const std::int64_t size = size_of(dtype_), step = strides_[3] * size;
  const std::byte* from = bytes_.data() + offset(row) * size;
  for (std::int64_t i = 0; i < extents_[3]; ++i) values[i] = read_element(dtype_, from + i * step);
}

void Tensor::set_row(std::int64_t row, const double* values) {
  const std::int64_t size = size_of(dtype_), step = strides_[3] * size;
  std::byte* to = bytes_.data() + offset(row) * size;
  for (std::int64_t i = 0; i < extents_[3]; ++i) write_element(dtype_, to + i * step, values[i]);
}

std::vector<double> Tensor::values() const {
  std::vector<double> all(static_cast<std::size_t>(elements()));
  for (std::int64_t row = 0; row < rows(); ++row) get_row(row, all.data() + row * row_elements());
  return all;
}

void Tensor::set_values(const std::vector<double>& values) {
  for (std::int64_t row = 0; row < rows(); ++row) set_row(row, values.data() + row * row_elements());
}

Tensor Tensor::converted(DType dtype) const {
  Tensor copy(name_, dtype, extents_);
  std::vector<double> row(static_cast<std::size_t>(row_elements()));
  for (std::int64_t r = 0; r < rows(); ++r) {
    get_row(r, row.data());
    copy.set_row(r, row.data());
  }
  return copy;
}

bool Tensor::gaps_untouched() const {
  const std::int64_t size = size_of(dtype_);
  if (static_cast<std::int64_t>(bytes_.size()) == elements() * size) return true;
  std::vector<std::byte> rest = bytes_;
  for (std::int64_t row = 0; row < rows(); ++row) {
    std::byte* to = rest.data() + offset(row) * size;
    for (std::int64_t i = 0; i < extents_[3]; ++i) std::fill_n(to + i * strides_[3] * size, size, kUntouched);
  }
  return all_untouched(rest.data(), rest.size());
}

PlacedMemory::PlacedMemory(const Device& device, std::size_t bytes, std::int64_t alignment)
    : kind_(device.kind), device_(device.index), bytes_(bytes) {
  // data = block + guard + alignment, with block and guard multiples of 2 * alignment.
  block_alignment_ = static_cast<std::size_t>(std::max<std::int64_t>(2 * alignment, 256));
  guard_ = std::max<std::size_t>(block_alignment_, 1024) + static_cast<std::size_t>(alignment);
  block_bytes_ = guard_ + bytes + guard_;
  if (kind_ == DeviceKind::cuda) {
    // cudaMalloc aligns to 256 bytes; a larger promise moves the data on.
    block_bytes_ += block_alignment_;
    block_ = static_cast<std::byte*>(device_memory::allocate(device_, block_bytes_));
    device_memory::fill(device_, block_, 0xff, block_bytes_);
  } else {
    block_ = static_cast<std::byte*>(::operator new(block_bytes_, std::align_val_t(block_alignment_)));
    std::fill_n(block_, block_bytes_, kUntouched);
  }
  const std::size_t past = reinterpret_cast<std::uintptr_t>(block_) % block_alignment_;
  data_ = block_ + (past == 0 ? 0 : block_alignment_ - past) + guard_;
}

PlacedMemory::~PlacedMemory() {
  if (kind_ == DeviceKind::cuda) {
    device_memory::release(device_, block_);
  } else {
    ::operator delete(block_, std::align_val_t(block_alignment_));
  }
}

void PlacedMemory::upload(const void* from) {
  if (bytes_ == 0) return;
  if (kind_ == DeviceKind::cuda) return device_memory::upload(device_, data_, from, bytes_);
  std::memcpy(data_, from, bytes_);
}

void PlacedMemory::fill(int byte) {
  if (bytes_ == 0) return;
  if (kind_ == DeviceKind::cuda) return device_memory::fill(device_, data_, byte, bytes_);
  std::memset(data_, byte, bytes_);
}

std::vector<std::byte> PlacedMemory::read(const std::byte* from, std::size_t bytes) const {
  std::vector<std::byte> copy(bytes);
  if (bytes == 0) return copy;
  if (kind_ == DeviceKind::cuda) {
    device_memory::download(device_, copy.data(), from, bytes);
  } else {
    std::memcpy(copy.data(), from, bytes);
  }
  return copy;
}

std::vector<std::byte> PlacedMemory::download() const { return read(data_, bytes_); }

bool PlacedMemory::guards_intact() const {
  const std::vector<std::byte> before = read(data_ - guard_, guard_), after = read(data_ + bytes_, guard_);
  return all_untouched(before.data(), before.size()) && all_untouched(after.data(), after.size());
}

}  // namespace fattn::verify
