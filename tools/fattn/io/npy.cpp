// SPDX-License-Identifier: Apache-2.0
#include "io/npy.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "fattn/error.hpp"

namespace fattn::io {

namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::uint64_t kLargestHeader = 65536;
constexpr std::size_t kLargestRank = 32;

struct Descr {
  std::string_view name;
  Element element;
};
constexpr std::array<Descr, 12> kDescrs = {{{"<f8", Element::f64},
                                            {"<f4", Element::f32},
                                            {"<f2", Element::f16},
                                            {"<i8", Element::i64},
                                            {"<i4", Element::i32},
                                            {"<i2", Element::i16},
                                            {"|i1", Element::i8},
                                            {"<u8", Element::u64},
                                            {"<u4", Element::u32},
                                            {"<u2", Element::u16},
                                            {"|u1", Element::u8},
                                            {"|b1", Element::boolean}}};

// The few forms of Python literals that numpy writes.
class DictionaryParser {
 public:
  DictionaryParser(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  NpyHeader parse() {
    NpyHeader header;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr") {
        once(descr, key);
        header.element = element();
      } else if (key == "fortran_order") {
        once(order, key);
        header.fortran_order = boolean();
      } else if (key == "shape") {
        once(shape, key);
        header.shape = tuple();
      } else {
        refuse(fmt::format("unknown key {}", printable(key)));
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_blanks();
    if (position_ != text_.size()) refuse(fmt::format("text after the dictionary at byte {}", position_));
    if (!descr || !order || !shape) {
      refuse(fmt::format("'{}' is missing", !descr ? "descr" : !order ? "fortran_order" : "shape"));
    }
    return header;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(Status::io_error, fmt::format("{}: npy header: {}", file_, what));
  }

  void once(bool& seen, const std::string& key) const {
    if (seen) refuse(fmt::format("'{}' occurs twice", key));
    seen = true;
  }

  void skip_blanks() {
    while (position_ < text_.size() && std::string_view(" \t\n\r").find(text_[position_]) != std::string_view::npos) {
      ++position_;
    }
  }
  bool accept(char c) {
    skip_blanks();
    if (position_ == text_.size() || text_[position_] != c) return false;
    ++position_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) refuse(fmt::format("'{}' expected at byte {}", c, position_));
  }

  std::string string() {
    skip_blanks();
    const char quote = position_ < text_.size() ? text_[position_] : '\0';
    if (quote != '\'' && quote != '"') refuse(fmt::format("a string expected at byte {}", position_));
    const std::size_t end = text_.find(quote, position_ + 1);
    if (end == std::string_view::npos) refuse("a string does not end");
    std::string value(text_.substr(position_ + 1, end - position_ - 1));
    position_ = end + 1;
    return value;
  }

  bool boolean() {
    skip_blanks();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(position_, word.size()) == word) {
        position_ += word.size();
        return value;
      }
    }
    refuse("'fortran_order' is neither True nor False");
  }

  Element element() {
    skip_blanks();
    if (position_ < text_.size() && text_[position_] == '[') refuse("arrays of records are not supported");
    const std::string name = string();
    for (const Descr& descr : kDescrs) {
      const bool same =
          name == descr.name || (!name.empty() && name[0] == '=' && name.substr(1) == descr.name.substr(1));
      if (same) return descr.element;
    }
    if (!name.empty() && name[0] == '>') {
      refuse(fmt::format("dtype {} is big-endian; save the array in little-endian order", printable(name)));
    }
    refuse(fmt::format("dtype {} is not supported; use <f4, <f2 or <f8, or safetensors for bf16", printable(name)));
  }

  std::int64_t integer() {
    skip_blanks();
    std::int64_t value = 0;
    const std::size_t begin = position_;
    while (position_ < text_.size() && text_[position_] >= '0' && text_[position_] <= '9') {
      if (__builtin_mul_overflow(value, std::int64_t(10), &value) ||
          __builtin_add_overflow(value, std::int64_t(text_[position_] - '0'), &value)) {
        refuse("an extent of 'shape' overflows");
      }
      ++position_;
    }
    if (position_ == begin) refuse(fmt::format("an extent expected at byte {}", position_));
    if (position_ < text_.size() && text_[position_] == 'L') ++position_;  // written by Python 2
    return value;
  }

  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> values;
    expect('(');
    while (!accept(')')) {
      if (values.size() == kLargestRank) refuse(fmt::format("more than {} dimensions", kLargestRank));
      values.push_back(integer());
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return values;
  }

  std::string_view text_;
  const std::string& file_;
  std::size_t position_ = 0;
};

// Walks the row-major positions in order while keeping the column-major position of the same element.
std::vector<std::byte> row_major(const std::vector<std::byte>& data, const std::vector<std::int64_t>& shape,
                                 std::size_t element_bytes) {
  std::vector<std::byte> result(data.size());
  std::vector<std::size_t> strides(shape.size()), index(shape.size(), 0);
  std::size_t stride = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    strides[i] = stride;
    stride *= static_cast<std::size_t>(shape[i]);
  }
  std::size_t from = 0;
  for (std::size_t to = 0; to < data.size(); to += element_bytes) {
    std::memcpy(result.data() + to, data.data() + from * element_bytes, element_bytes);
    for (std::size_t i = shape.size(); i-- > 0;) {
      from += strides[i];
      if (++index[i] < static_cast<std::size_t>(shape[i])) break;
      from -= strides[i] * index[i];
      index[i] = 0;
    }
  }
  return result;
}

}  // namespace

NpyHeader parse_npy_header(std::string_view text, const std::string& file) {
  return DictionaryParser(text, file).parse();
}

Array read_npy(const Source& source) {
  const auto refuse = [&](const std::string& what) {
    throw Error(Status::io_error, fmt::format("{}: {}", source.name(), what));
  };
  std::array<std::byte, 12> prefix = {};
  const std::size_t have = std::min<std::uint64_t>(prefix.size(), source.size());
  source.read(0, std::span(prefix).first(have));
  if (have < 10 || std::memcmp(prefix.data(), kMagic.data(), kMagic.size()) != 0) refuse("not an npy file");
  const auto byte = [&](std::size_t i) { return std::to_integer<std::uint32_t>(prefix[i]); };
  const std::uint32_t version = byte(6);
  if (version < 1 || version > 3) refuse(fmt::format("npy version {}.{}; 1 to 3 are supported", version, byte(7)));
  const std::uint64_t begin = version == 1 ? 10 : 12;
  const std::uint64_t length = byte(8) | byte(9) << 8 | (version == 1 ? 0 : byte(10) << 16 | byte(11) << 24);
  if (length > kLargestHeader)
    refuse(fmt::format("npy header of {} bytes, at most {} are accepted", length, kLargestHeader));
  if (begin > source.size() || length > source.size() - begin) {
    refuse(fmt::format("truncated: an npy header of {} bytes in a file of {}", length, source.size()));
  }
  std::string text(length, '\0');
  source.read(begin, std::as_writable_bytes(std::span(text)));
  const NpyHeader header = parse_npy_header(text, source.name());

  const std::optional<std::uint64_t> bytes = byte_size(header.element, header.shape);
  if (!bytes) refuse(fmt::format("shape {} overflows", shape_text(header.shape)));
  const std::uint64_t rest = source.size() - begin - length;
  if (*bytes != rest)
    refuse(fmt::format("shape {} takes {} bytes, the file holds {}", shape_text(header.shape), *bytes, rest));
  Array array{header.element, header.shape, std::vector<std::byte>(*bytes)};
  source.read(begin + length, array.data);
  if (header.fortran_order) {
    array.data = row_major(array.data, array.shape, static_cast<std::size_t>(size_of(array.element)));
  }
  return array;
}

void write_npy(Sink& sink, const Array& array) {
  std::string_view descr;
  for (const Descr& row : kDescrs) {
    if (row.element == array.element) descr = row.name;
  }
  if (descr.empty()) {
    throw Error(Status::invalid_argument, fmt::format("npy has no name for {}; write safetensors, or widen to F32",
                                                      safetensors_name(array.element)));
  }
  if (byte_size(array.element, array.shape) != array.data.size()) {
    throw Error(Status::internal_error,
                fmt::format("cannot write npy: {} with {} bytes", shape_text(array.shape), array.data.size()));
  }
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", descr,
                                 fmt::join(array.shape, ", "), array.shape.size() == 1 ? "," : "");
  // Data begin at a multiple of 64 bytes, and the header ends in a newline.
  const std::size_t total = (10 + text.size() + 1 + 63) / 64 * 64;
  text.resize(total - 11, ' ');
  text += '\n';
  std::string prefix(kMagic);
  prefix += {'\x01', '\0', static_cast<char>(text.size() & 0xff), static_cast<char>(text.size() >> 8)};
  sink.write(prefix);
  sink.write(text);
  sink.write(array.data);
}

}  // namespace fattn::io
