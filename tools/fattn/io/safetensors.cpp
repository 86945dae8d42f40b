// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "fattn/error.hpp"

namespace fattn::io {

namespace {

using nlohmann::json;

constexpr std::uint64_t kLargestHeader = 100'000'000;  // the bound of the reference implementation
constexpr std::size_t kLargestRank = 32;

// Reads the header event by event: a document tree would silently keep the last of two equal names.
class HeaderHandler final : public json::json_sax_t {
 public:
  HeaderHandler(const std::string& file, SafetensorsHeader& header) : file_(file), header_(header) {}

  bool null() override { refuse_value("null"); }
  bool boolean(bool value) override { refuse_value(value ? "true" : "false"); }
  bool number_integer(json::number_integer_t value) override { refuse_value(std::to_string(value)); }
  bool number_float(json::number_float_t, const json::string_t& text) override { refuse_value(text); }
  bool binary(json::binary_t&) override { refuse_value("binary data"); }

  bool number_unsigned(json::number_unsigned_t value) override {
    if (place_ == Place::shape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        refuse_value(std::to_string(value));
      }
      if (tensor_.shape.size() == kLargestRank) refuse(fmt::format("more than {} dimensions", kLargestRank));
      tensor_.shape.push_back(static_cast<std::int64_t>(value));
    } else if (place_ == Place::offsets) {
      if (offsets_ == 2) refuse("data_offsets has more than 2 values");
      (offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
    } else {
      refuse_value(std::to_string(value));
    }
    return true;
  }

  bool string(json::string_t& value) override {
    if (place_ == Place::metadata) {
      header_.metadata[key_] = value;
    } else if (place_ == Place::tensor && key_ == "dtype") {
      const std::optional<Element> element = element_of_safetensors(value);
      if (!element) refuse(fmt::format("unknown dtype {}", printable(value)));
      tensor_.element = *element;
    } else {
      refuse_value(printable(value));
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      place_ = key_ == "__metadata__" ? Place::metadata : Place::tensor;
      keys_.clear();
      tensor_ = {};
      tensor_.name = key_;
      offsets_ = 0;
    } else {
      refuse_value("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      for (const char* key : {"dtype", "shape", "data_offsets"}) {
        if (!keys_.contains(key)) refuse(fmt::format("{} is missing", key));
      }
      header_.tensors.push_back(std::move(tensor_));
      tensor_ = {};
    }
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }

  bool key(json::string_t& value) override {
    if (place_ == Place::top) {
      if (!names_.insert(value).second) throw error(fmt::format("the name {} occurs twice", printable(value)));
    } else {
      if (!keys_.insert(value).second) refuse(fmt::format("the key {} occurs twice", printable(value)));
      if (place_ == Place::tensor && value != "dtype" && value != "shape" && value != "data_offsets") {
        refuse(fmt::format("unknown key {}", printable(value)));
      }
    }
    key_ = value;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::tensor || key_ == "dtype") refuse_value("an array");
    place_ = key_ == "shape" ? Place::shape : Place::offsets;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::offsets && offsets_ != 2) refuse(fmt::format("data_offsets has {} values, not 2", offsets_));
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    throw error(fmt::format("the header is no JSON: unexpected text at byte {}", position));
  }

 private:
  enum class Place { outside, top, metadata, tensor, shape, offsets };

  Error error(const std::string& what) const { return {Status::io_error, fmt::format("{}: {}", file_, what)}; }

  [[noreturn]] void refuse(const std::string& what) const {
    throw error(place_ == Place::metadata ? fmt::format("__metadata__: {}", what)
                                          : fmt::format("tensor {}: {}", printable(tensor_.name), what));
  }

  [[noreturn]] void refuse_value(const std::string& value) const {
    if (place_ == Place::outside) throw error("the header is not a JSON object");
    if (place_ == Place::top) throw error(fmt::format("{} is {}, not an object", printable(key_), value));
    refuse(fmt::format("{} cannot be {}", printable(key_), value));
  }

  const std::string& file_;
  SafetensorsHeader& header_;
  Place place_ = Place::outside;
  std::unordered_set<std::string> names_;  // tensors
  std::unordered_set<std::string> keys_;   // of the object at hand
  std::string key_;
  TensorInfo tensor_;
  int offsets_ = 0;
};

void check_sizes(const SafetensorsHeader& header, std::uint64_t data_bytes, const std::string& file) {
  for (const TensorInfo& tensor : header.tensors) {
    const auto refuse = [&](const std::string& what) {
      throw Error(Status::io_error, fmt::format("{}: tensor {}: {}", file, printable(tensor.name), what));
    };
    if (tensor.begin > tensor.end || tensor.end > data_bytes) {
      refuse(fmt::format("data_offsets [{}, {}] are out of range: the file holds {} bytes of data", tensor.begin,
                         tensor.end, data_bytes));
    }
    const std::optional<std::uint64_t> bytes = byte_size(tensor.element, tensor.shape);
    if (!bytes) refuse(fmt::format("shape {} overflows", shape_text(tensor.shape)));
    if (*bytes != tensor.end - tensor.begin) {
      refuse(fmt::format("{} {} takes {} bytes, data_offsets span {}", safetensors_name(tensor.element),
                         shape_text(tensor.shape), *bytes, tensor.end - tensor.begin));
    }
  }
}

void check_coverage(const SafetensorsHeader& header, std::uint64_t data_bytes, const std::string& file) {
  std::uint64_t covered = 0;
  const TensorInfo* before = nullptr;
  for (const TensorInfo& tensor : header.tensors) {
    if (tensor.begin < covered) {
      throw Error(Status::io_error,
                  fmt::format("{}: tensors {} and {} overlap", file, printable(before->name), printable(tensor.name)));
    }
    if (tensor.begin > covered) {
      throw Error(Status::io_error, fmt::format("{}: bytes {} to {} before tensor {} belong to no tensor", file,
                                                covered, tensor.begin, printable(tensor.name)));
    }
    covered = tensor.end;
    before = &tensor;
  }
  if (covered != data_bytes) {
    throw Error(Status::io_error,
                fmt::format("{}: {} bytes after the last tensor belong to none", file, data_bytes - covered));
  }
}

std::uint64_t little_endian(const std::array<std::byte, 8>& bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  return value;
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes, const std::string& file) {
  // The format fixes the first byte, which also keeps byte-order marks and leading blanks out.
  if (text.empty() || text.front() != '{') {
    throw Error(Status::io_error, fmt::format("{}: not a safetensors file: the header does not begin with '{{'", file));
  }
  SafetensorsHeader header;
  HeaderHandler handler(file, header);
  json::sax_parse(text.begin(), text.end(), &handler);
  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_sizes(header, data_bytes, file);
  check_coverage(header, data_bytes, file);
  return header;
}

SafetensorsReader::SafetensorsReader(const Source& source) : source_(source) {
  const auto refuse = [&](const std::string& what) {
    throw Error(Status::io_error, fmt::format("{}: {}", source.name(), what));
  };
  std::array<std::byte, 8> prefix = {};
  if (source.size() < prefix.size()) refuse(fmt::format("not a safetensors file: {} bytes long", source.size()));
  source.read(0, prefix);
  const std::uint64_t length = little_endian(prefix), rest = source.size() - prefix.size();
  if (length > kLargestHeader) {
    refuse(
        fmt::format("not a safetensors file: a header of {} bytes, at most {} are accepted", length, kLargestHeader));
  }
  if (length > rest) refuse(fmt::format("truncated: a header of {} bytes in a file of {}", length, source.size()));
  std::string text(length, '\0');
  source.read(prefix.size(), std::as_writable_bytes(std::span(text)));
  data_offset_ = prefix.size() + length;
  header_ = parse_safetensors_header(text, rest - length, source.name());
}

const TensorInfo* SafetensorsReader::find(std::string_view name) const {
  for (const TensorInfo& tensor : header_.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

Array SafetensorsReader::read(const TensorInfo& tensor) const {
  Array array{tensor.element, tensor.shape, std::vector<std::byte>(tensor.end - tensor.begin)};
  source_.read(data_offset_ + tensor.begin, array.data);
  return array;
}

void write_safetensors(Sink& sink, const std::map<std::string, Array>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const std::pair<const std::string, Array>*> order;
  order.reserve(tensors.size());
  for (const auto& entry : tensors) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return size_of(a->second.element) > size_of(b->second.element);
  });
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const auto* entry : order) {
    const auto& [name, array] = *entry;
    if (byte_size(array.element, array.shape) != array.data.size() || name == "__metadata__") {
      throw Error(Status::internal_error, fmt::format("cannot write tensor {}: {} with {} bytes", printable(name),
                                                      shape_text(array.shape), array.data.size()));
    }
    header[name] = {{"dtype", safetensors_name(array.element)},
                    {"shape", array.shape},
                    {"data_offsets", {offset, offset + array.data.size()}}};
    offset += array.data.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::array<std::byte, 8> prefix = {};
  for (std::size_t i = 0; i < 8; ++i) prefix[i] = static_cast<std::byte>(text.size() >> (8 * i));
  sink.write(std::span<const std::byte>(prefix));
  sink.write(text);
  for (const auto* entry : order) sink.write(entry->second.data);
}

}  // namespace fattn::io
