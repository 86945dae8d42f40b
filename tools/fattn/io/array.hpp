// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fattn/tensor.hpp"

namespace fattn::io {

// What the elements of a file's tensor are: all of safetensors' types, so that files with other tensors can be opened.
enum class Element : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean
};

std::int64_t size_of(Element element);
std::string_view safetensors_name(Element element);  // "BF16"
std::optional<Element> element_of_safetensors(std::string_view name);
std::optional<DType> dtype_of(Element element);  // empty for the types attention has no use for
Element element_of(DType dtype);

// A tensor in memory, row-major.
struct Array {
  Element element = Element::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;
};

// Bytes of a row-major tensor; empty when the product does not fit 62 bits.
std::optional<std::uint64_t> byte_size(Element element, const std::vector<std::int64_t>& shape);

std::string shape_text(const std::vector<std::int64_t>& shape);  // "[1, 2048, 9, 64]"

// Text from a file, made fit for a terminal: control characters escaped, quoted, cut after so many characters.
std::string printable(std::string_view text, std::size_t shown = 60);

}  // namespace fattn::io
