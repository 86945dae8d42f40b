// SPDX-License-Identifier: Apache-2.0
#include "io/npy.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "fattn/error.hpp"

// Any bytes are either refused with an Error or an array, which survives being written and read again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace fattn;
  const io::MemorySource source("fuzz.npy", std::as_bytes(std::span(data, size)));
  io::Array array;
  try {
    array = io::read_npy(source);
  } catch (const Error& error) {
    if (error.status() != Status::io_error) std::abort();
    return 0;
  }
  if (io::byte_size(array.element, array.shape) != array.data.size()) std::abort();
  io::MemorySink sink;
  io::write_npy(sink, array);
  const io::Array again = io::read_npy(io::MemorySource("again.npy", sink.bytes));
  if (again.element != array.element || again.shape != array.shape || again.data != array.data) std::abort();
  return 0;
}
