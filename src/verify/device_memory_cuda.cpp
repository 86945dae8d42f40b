// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <string>

#include "fattn/error.hpp"
#include "verify/device_memory.hpp"

namespace fattn::verify::device_memory {
namespace {

void require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const Status status = error == cudaErrorMemoryAllocation ? Status::out_of_memory : Status::device_error;
  throw Error(status, std::string(what) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
}

// Makes a device current and the former one current again.
class Guard {
 public:
  explicit Guard(int device) {
    require(cudaGetDevice(&former_), "cudaGetDevice");
    require(cudaSetDevice(device), "cudaSetDevice");
  }
  ~Guard() { cudaSetDevice(former_); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  int former_ = 0;
};

}  // namespace

void* allocate(int device, std::size_t bytes) {
  const Guard guard(device);
  void* memory = nullptr;
  require(cudaMalloc(&memory, bytes > 0 ? bytes : 1), "cudaMalloc");
  return memory;
}

void release(int, void* memory) noexcept { cudaFree(memory); }

void upload(int device, void* to, const void* from, std::size_t bytes) {
  const Guard guard(device);
  require(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}

void download(int device, void* to, const void* from, std::size_t bytes) {
  const Guard guard(device);
  require(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
}

void fill(int device, void* memory, int byte, std::size_t bytes) {
  const Guard guard(device);
  require(cudaMemset(memory, byte, bytes), "cudaMemset");
}

void synchronize(int device) {
  const Guard guard(device);
  require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

}  // namespace fattn::verify::device_memory
