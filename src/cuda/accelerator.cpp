// SPDX-License-Identifier: Apache-2.0
#include "core/accelerator.hpp"

#include <cuda_runtime_api.h>

#include "cuda/device.hpp"
#include "cuda/launch.hpp"

namespace fattn::accelerator {

bool compiled() { return true; }

std::vector<Device> devices() { return gpu::present_devices(); }

Where locate(const void* pointer) {
  // Without a GPU every pointer is the host's, and the runtime must not be asked.
  if (gpu::present_devices().empty()) return {};
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, pointer) != cudaSuccess) {
    cudaGetLastError();  // a pointer the runtime does not know is an answer, not an error to leave behind
    return {};
  }
  switch (attributes.type) {
    case cudaMemoryTypeDevice: return {Space::device, attributes.device};
    case cudaMemoryTypeManaged: return {Space::managed, attributes.device};
    default: return {Space::host, -1};
  }
}

void copy_to_host(void* to, const void* from, std::size_t bytes, int device, Stream stream) {
  const gpu::DeviceGuard guard(device);
  gpu::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream.cuda), "cudaMemcpyAsync");
  gpu::check(cudaStreamSynchronize(stream.cuda), "cudaStreamSynchronize");
}

}  // namespace fattn::accelerator
