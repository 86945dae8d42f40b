// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/array.hpp"
#include "io/file.hpp"

namespace fattn::io {

struct TensorInfo {
  std::string name;
  Element element = Element::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // bytes after the header
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their data
  std::map<std::string, std::string> metadata;
};

// Checks everything the format promises: known dtypes, sizes that match shapes, no name twice, and tensors that cover
// the `data_bytes` after the header exactly once. Throws Error(io_error) naming `file`, the tensor and the value.
SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes, const std::string& file);

// A .safetensors file, read tensor by tensor: only the header is held. `source` must outlive it.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const Source& source);
  const SafetensorsHeader& header() const { return header_; }
  const TensorInfo* find(std::string_view name) const;  // nullptr: not there
  Array read(const TensorInfo& tensor) const;

 private:
  const Source& source_;
  std::uint64_t data_offset_ = 0;
  SafetensorsHeader header_;
};

// Tensors are written by falling element size, so that each one is aligned without gaps.
void write_safetensors(Sink& sink, const std::map<std::string, Array>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace fattn::io
