// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <utility>

#include "cuda/start_kernel.hpp"
#include "fattn/device.hpp"
#include "fattn/error.hpp"

// The only place that launches kernels, changes their attributes or the current device. (The namespace is gpu because
// fattn::cuda is a public function.)
namespace fattn::gpu {

// Throws Error(device_error) "<what>: <CUDA's name>: <CUDA's text>", and clears the error it reports.
void check(cudaError_t error, const char* what, const char* kernel = nullptr);

// Makes `device` current for a scope. It is set even where cudaGetDevice names it already: a thread that has not used
// CUDA yet has no context, and the driver's functions (tensor maps) would fail there.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = before_ != device;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// How a kernel is launched. Threads and blocks of a cluster must divide as CUDA asks; 1 block: no cluster. Early: its
// blocks may start before the kernel before it has ended, and wait for that themselves (ptx/dependents.cuh). Together:
// its blocks wait for each other, so that all have to run at the same time.
struct LaunchConfig {
  dim3 grid{1, 1, 1};
  dim3 block{1, 1, 1};
  std::size_t shared_bytes = 0;
  dim3 cluster{1, 1, 1};
  bool early = false;
  bool together = false;
};

// Loads a kernel on a device, at plan time, and allows it its dynamic shared memory. Loading later would allocate and
// synchronise inside run(), and fail inside graph capture. Does nothing for a device that is only described.
template <class... Params>
cudaFuncAttributes load_kernel(const Device& device, const char* name, void (*kernel)(Params...),
                               std::size_t shared_bytes) {
  cudaFuncAttributes attributes{};
  if (device.kind != DeviceKind::cuda || device.index < 0) return attributes;
  const DeviceGuard guard(device.index);
  const void* function = reinterpret_cast<const void*>(kernel);
  check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
        "cudaFuncSetAttribute", name);
  check(cudaFuncGetAttributes(&attributes, function), "cudaFuncGetAttributes", name);
  return attributes;
}

// The stream is not optional. The device must be current (DeviceGuard) and the kernel loaded (load_kernel). False: its
// blocks cannot run together.
template <class... Params, class... Args>
[[nodiscard]] bool try_launch(const char* name, void (*kernel)(Params...), const LaunchConfig& config,
                              cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute attributes[3];
  cudaLaunchConfig_t launch_config{};
  launch_config.gridDim = config.grid;
  launch_config.blockDim = config.block;
  launch_config.dynamicSmemBytes = config.shared_bytes;
  launch_config.stream = stream;
  launch_config.attrs = attributes;
  if (config.cluster.x * config.cluster.y * config.cluster.z > 1) {
    cudaLaunchAttribute& attribute = attributes[launch_config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {config.cluster.x, config.cluster.y, config.cluster.z};
  }
  if (config.early) {
    cudaLaunchAttribute& attribute = attributes[launch_config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  if (config.together) {
    cudaLaunchAttribute& attribute = attributes[launch_config.numAttrs++];
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  const cudaError_t error = start_kernel<Params...>(launch_config, kernel, std::forward<Args>(args)...);
  if (config.together && error == cudaErrorCooperativeLaunchTooLarge) {
    cudaGetLastError();
    return false;
  }
  check(error, "cudaLaunchKernel", name);
  return true;
}

template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), const LaunchConfig& config, cudaStream_t stream,
            Args&&... args) {
  if (!try_launch(name, kernel, config, stream, std::forward<Args>(args)...))
    check(cudaErrorCooperativeLaunchTooLarge, "cudaLaunchKernel", name);
}

}  // namespace fattn::gpu
