// SPDX-License-Identifier: Apache-2.0
#include "io/array.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

namespace fattn::io {

namespace {

struct ElementInfo {
  Element element;
  std::string_view name;
  std::int64_t size;
};

constexpr std::array<ElementInfo, 15> kElements = {{
    {Element::f64, "F64", 8},
    {Element::f32, "F32", 4},
    {Element::f16, "F16", 2},
    {Element::bf16, "BF16", 2},
    {Element::f8_e4m3, "F8_E4M3", 1},
    {Element::f8_e5m2, "F8_E5M2", 1},
    {Element::i64, "I64", 8},
    {Element::i32, "I32", 4},
    {Element::i16, "I16", 2},
    {Element::i8, "I8", 1},
    {Element::u64, "U64", 8},
    {Element::u32, "U32", 4},
    {Element::u16, "U16", 2},
    {Element::u8, "U8", 1},
    {Element::boolean, "BOOL", 1},
}};

const ElementInfo& info(Element element) { return kElements[static_cast<std::size_t>(element)]; }

}  // namespace

std::int64_t size_of(Element element) { return info(element).size; }

std::string_view safetensors_name(Element element) { return info(element).name; }

std::optional<Element> element_of_safetensors(std::string_view name) {
  for (const ElementInfo& row : kElements) {
    if (row.name == name) return row.element;
  }
  return std::nullopt;
}

std::optional<DType> dtype_of(Element element) {
  switch (element) {
    case Element::f64: return DType::fp64;
    case Element::f32: return DType::fp32;
    case Element::f16: return DType::fp16;
    case Element::bf16: return DType::bf16;
    case Element::f8_e4m3: return DType::e4m3;
    default: return std::nullopt;
  }
}

Element element_of(DType dtype) {
  switch (dtype) {
    case DType::fp64: return Element::f64;
    case DType::fp32: return Element::f32;
    case DType::fp16: return Element::f16;
    case DType::bf16: return Element::bf16;
    case DType::e4m3: return Element::f8_e4m3;
  }
  return Element::f32;
}

std::optional<std::uint64_t> byte_size(Element element, const std::vector<std::int64_t>& shape) {
  constexpr std::uint64_t kLargest = std::uint64_t(1) << 62;
  std::uint64_t bytes = static_cast<std::uint64_t>(size_of(element));
  bool empty = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0) return std::nullopt;
    if (extent == 0) {
      empty = true;
      continue;
    }
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes) || bytes > kLargest) {
      return std::nullopt;
    }
  }
  return empty ? 0 : bytes;
}

std::string shape_text(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::string printable(std::string_view text, std::size_t shown) {
  std::string result = "\"";
  for (const char c : text.substr(0, shown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || byte >= 0x80) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      result += c;
    }
  }
  if (text.size() > shown) result += "...";
  return result + '"';
}

}  // namespace fattn::io
