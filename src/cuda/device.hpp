// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "fattn/device.hpp"

namespace fattn::gpu {

// src/cuda/CMakeLists.txt compiles for sm_90a alone, which runs on compute capability 9.0 and nothing else.
inline constexpr int kCompiledCapability = 90;

// The GPUs of this machine, asked once; empty without a driver.
const std::vector<Device>& present_devices();

// The first thing every CUDA row asks: empty, or why this build has no code for the device.
std::string decline_device(const Device& device);

}  // namespace fattn::gpu
