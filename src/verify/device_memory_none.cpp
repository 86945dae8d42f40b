// SPDX-License-Identifier: Apache-2.0
#include "fattn/error.hpp"
#include "verify/device_memory.hpp"

namespace fattn::verify::device_memory {

namespace {
[[noreturn]] void absent() { throw Error(Status::device_not_present, "this build has no CUDA code"); }
}  // namespace

void* allocate(int, std::size_t) { absent(); }
void release(int, void*) noexcept {}
void upload(int, void*, const void*, std::size_t) { absent(); }
void download(int, void*, const void*, std::size_t) { absent(); }
void fill(int, void*, int, std::size_t) { absent(); }
void synchronize(int) { absent(); }

}  // namespace fattn::verify::device_memory
