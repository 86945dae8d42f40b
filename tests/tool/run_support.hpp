// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <map>
#include <random>

#include "io/npy.hpp"
#include "io/safetensors.hpp"
#include "tool/support.hpp"

namespace fattn::tool {

using io::Array;
using io::Element;

inline Array array_of(const std::vector<std::int64_t>& shape, const std::vector<float>& values) {
  Array array{Element::f32, shape, std::vector<std::byte>(values.size() * sizeof(float))};
  if (!values.empty()) std::memcpy(array.data.data(), values.data(), array.data.size());
  return array;
}

inline std::vector<float> values_of(const Array& array) {
  EXPECT_EQ(array.element, Element::f32);
  std::vector<float> values(array.data.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), array.data.data(), array.data.size());
  return values;
}

inline Array normal(const std::vector<std::int64_t>& shape, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::size_t count = 1;
  for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  return array_of(shape, values);
}

using Tensors = std::map<std::string, Array>;

inline Tensors small() {
  return {{"q", normal({2, 24, 4, 16}, 1)}, {"k", normal({2, 32, 2, 16}, 2)}, {"v", normal({2, 32, 2, 8}, 3)}};
}

inline std::string write(const TemporaryDirectory& directory, const Tensors& tensors) {
  io::MemorySink sink;
  io::write_safetensors(sink, tensors);
  const std::string path = directory / "in.safetensors";
  io::write_text(path, std::string_view(reinterpret_cast<const char*>(sink.bytes.data()), sink.bytes.size()));
  return path;
}

inline std::vector<std::string> write_npys(const TemporaryDirectory& directory, const Tensors& tensors) {
  std::vector<std::string> paths;
  for (const char* name : {"q", "k", "v"}) {
    io::MemorySink sink;
    io::write_npy(sink, tensors.at(name));
    paths.push_back(directory / (std::string(name) + ".npy"));
    io::write_text(paths.back(), std::string_view(reinterpret_cast<const char*>(sink.bytes.data()), sink.bytes.size()));
  }
  return paths;
}

inline Tensors read(const std::filesystem::path& path) {
  const io::FileSource source(path);
  const io::SafetensorsReader reader(source);
  Tensors tensors;
  for (const io::TensorInfo& info : reader.header().tensors) tensors.emplace(info.name, reader.read(info));
  return tensors;
}

}  // namespace fattn::tool
