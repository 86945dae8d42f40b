// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "fattn/error.hpp"

namespace {

using namespace fattn;

void expect(bool condition) {
  if (!condition) std::abort();
}

// What the reader promises about every header it accepts.
void expect_covered(const io::SafetensorsHeader& header, std::uint64_t data_bytes) {
  std::uint64_t covered = 0;
  for (const io::TensorInfo& tensor : header.tensors) {
    expect(tensor.begin == covered && tensor.end >= tensor.begin);
    expect(io::byte_size(tensor.element, tensor.shape) == tensor.end - tensor.begin);
    covered = tensor.end;
  }
  expect(covered == data_bytes);
}

void read_file(std::span<const std::byte> bytes) {
  const io::MemorySource source("fuzz.safetensors", bytes);
  const io::SafetensorsReader reader(source);
  std::map<std::string, io::Array> tensors;
  for (const io::TensorInfo& tensor : reader.header().tensors) {
    expect(reader.find(tensor.name) == &tensor);
    expect(tensors.emplace(tensor.name, reader.read(tensor)).second);
  }
  io::MemorySink sink;
  io::write_safetensors(sink, tensors, reader.header().metadata);
  const io::MemorySource written("again.safetensors", sink.bytes);
  const io::SafetensorsReader again(written);
  expect(again.header().metadata == reader.header().metadata);
  expect(again.header().tensors.size() == tensors.size());
  for (const auto& [name, array] : tensors) {
    const io::TensorInfo* info = again.find(name);
    expect(info != nullptr && info->element == array.element && info->shape == array.shape);
    expect(again.read(*info).data == array.data);
  }
}

template <class Body>
void allow_refusal(Body body) {
  try {
    body();
  } catch (const Error& error) {
    expect(error.status() == Status::io_error);
  }
}

}  // namespace

// Any bytes are either refused with an Error or tensors that cover their data, which survive being written and read
// again. The bytes are taken as a whole file, and as a header behind two bytes that say how much data follows it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> bytes(data, size);
  allow_refusal([&] { read_file(std::as_bytes(bytes)); });
  if (size < 2) return 0;
  const std::uint64_t data_bytes = data[0] | static_cast<std::uint64_t>(data[1]) << 8;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  allow_refusal([&] { expect_covered(io::parse_safetensors_header(text, data_bytes, "fuzz"), data_bytes); });
  return 0;
}
