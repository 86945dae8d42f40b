// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

// Memory of a CUDA device, for test data. Implemented by device_memory_cuda.cpp, or by device_memory_none.cpp in builds
// without CUDA; the build picks.
namespace fattn::verify::device_memory {

void* allocate(int device, std::size_t bytes);  // 256 bytes aligned; throws Error(device_error)
void release(int device, void* memory) noexcept;
void upload(int device, void* to, const void* from, std::size_t bytes);
void download(int device, void* to, const void* from, std::size_t bytes);
void fill(int device, void* memory, int byte, std::size_t bytes);
void synchronize(int device);  // throws what earlier asynchronous work failed with

}  // namespace fattn::verify::device_memory
