// SPDX-License-Identifier: Apache-2.0
#include "core/accelerator.hpp"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <link.h>

#include <atomic>

#include "cuda/device.hpp"
#include "cuda/launch.hpp"

namespace fattn::accelerator {
namespace {

// cuPointerGetAttributes, asked of the driver itself: it needs no context, so a CPU plan in a program that never uses
// CUDA starts none. Null while the process has not loaded the driver: then nothing in it is a device's.
using PointerAttributes = CUresult (*)(unsigned, CUpointer_attribute*, void**, CUdeviceptr);

PointerAttributes pointer_attributes() {
  static std::atomic<PointerAttributes> found{nullptr};
  if (const PointerAttributes known = found.load(std::memory_order_relaxed)) return known;
  // Asking for a library that is not there takes 20 us: again only when others have been loaded.
  static std::atomic<unsigned long long> without{0};
  unsigned long long loaded = 0;
  const auto count = [](dl_phdr_info* info, std::size_t, void* to) {
    *static_cast<unsigned long long*>(to) = info->dlpi_adds;
    return 1;
  };
  dl_iterate_phdr(count, &loaded);
  if (loaded == without.load(std::memory_order_relaxed)) return nullptr;
  void* const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  if (driver == nullptr) {
    without.store(loaded, std::memory_order_relaxed);
    return nullptr;
  }
  const auto function = reinterpret_cast<PointerAttributes>(dlsym(driver, "cuPointerGetAttributes"));
  found.store(function, std::memory_order_relaxed);
  return function;
}

}  // namespace

bool compiled() { return true; }

std::vector<Device> devices() { return gpu::present_devices(); }

Where locate(const void* pointer) {
  const PointerAttributes look_up = pointer_attributes();
  if (look_up == nullptr) return {Space::host, -1};
  unsigned memory_type = 0, managed = 0;  // unregistered host memory leaves them 0
  int device = -1;
  CUpointer_attribute wanted[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                  CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
  void* answers[] = {&memory_type, &managed, &device};
  // Before cuInit there is no device memory either: any error means the host's.
  if (look_up(3, wanted, answers, reinterpret_cast<CUdeviceptr>(pointer)) != CUDA_SUCCESS) return {Space::host, -1};
  if (managed != 0) return {Space::managed, device};
  if (memory_type == CU_MEMORYTYPE_DEVICE) return {Space::device, device};
  return {Space::host, -1};
}

void copy_to_host(void* to, const void* from, std::size_t bytes, int device, Stream stream) {
  const gpu::DeviceGuard guard(device);
  gpu::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream.cuda), "cudaMemcpyAsync");
  gpu::check(cudaStreamSynchronize(stream.cuda), "cudaStreamSynchronize");
}

}  // namespace fattn::accelerator
