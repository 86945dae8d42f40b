// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "fattn/attention.hpp"
#include "fattn/device.hpp"

// What core needs from the CUDA room. Implemented by src/cuda/accelerator.cpp, or by src/no_cuda/accelerator.cpp in
// builds without it; the linker picks, not the preprocessor.
namespace fattn::accelerator {

enum class Space : unsigned char { unknown, host, device, managed };

struct Where {
  Space space = Space::unknown;
  int device = -1;
};

bool compiled();                    // is there CUDA code in this library
std::vector<Device> devices();      // empty without a driver or a GPU
Where locate(const void* pointer);  // unknown without CUDA
// Copies device data to the host, synchronising the stream (validate_device only).
void copy_to_host(void* to, const void* from, std::size_t bytes, int device, Stream stream);

}  // namespace fattn::accelerator
