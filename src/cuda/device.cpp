// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.hpp"

#include <cuda_runtime_api.h>

#include <string>

#include "cuda/launch.hpp"

namespace fattn::gpu {

void check(cudaError_t error, const char* what, const char* kernel) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  std::string message = what;
  if (kernel != nullptr) message += std::string(" (") + kernel + ")";
  message += std::string(": ") + cudaGetErrorName(error) + ": " + cudaGetErrorString(error);
  throw Error(Status::device_error, message);
}

namespace {

int attribute(cudaDeviceAttr name, int index) {
  int value = 0;
  if (cudaDeviceGetAttribute(&value, name, index) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return value;
}

// Dense 16-bit tensor-core peak by the datasheets: 989.4 TFLOP/s for the 132 multiprocessors of an H100 or H200 SXM.
double peak_16bit(int compute_capability, int sm_count) {
  return compute_capability == 90 ? 989.4 * sm_count / 132 : 0.0;
}

Device describe(int index) {
  Device device;
  device.kind = DeviceKind::cuda;
  device.index = index;
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  device.name = properties.name;
  device.compute_capability = properties.major * 10 + properties.minor;
  device.sm_count = properties.multiProcessorCount;
  device.shared_memory_per_block = static_cast<std::int64_t>(properties.sharedMemPerBlockOptin);
  device.l2_bytes = properties.l2CacheSize;
  device.memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
  device.peak_16bit_tflops = peak_16bit(device.compute_capability, device.sm_count);
  // Two transfers a memory clock (kHz) on a bus of so many bits.
  device.memory_gb_per_second =
      2.0 * attribute(cudaDevAttrMemoryClockRate, index) * (properties.memoryBusWidth / 8.0) / 1e6;
  return device;
}

std::vector<Device> find_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {  // no driver or no GPU is not an error here
    cudaGetLastError();
    return {};
  }
  std::vector<Device> found;
  found.reserve(static_cast<std::size_t>(count));
  for (int index = 0; index < count; ++index) found.push_back(describe(index));
  return found;
}

}  // namespace

const std::vector<Device>& present_devices() {
  static const std::vector<Device> devices = find_devices();
  return devices;
}

std::string decline_device(const Device& device) {
  if (device.kind != DeviceKind::cuda) return "device = cpu: this row runs on cuda";
  if (device.compute_capability != kCompiledCapability)
    return "compute_capability = " + std::to_string(device.compute_capability) + ": this build has code for " +
           std::to_string(kCompiledCapability) + " (sm_90a) only";
  return {};
}

}  // namespace fattn::gpu
