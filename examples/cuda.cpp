// SPDX-License-Identifier: Apache-2.0
// The same Problem -> Plan -> run on a GPU: device memory, a stream, and nothing waits until the program says so.
// Values are all ones, so whatever the weights are, so is the output. Exit code 77: there is no GPU here.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <vector>

#include "fattn/fattn.hpp"

namespace {

// Zero-filled device memory.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : bytes_(count * sizeof(T)) {
    if (cudaMalloc(reinterpret_cast<void**>(&data_), bytes_) != cudaSuccess) return;
    cudaMemset(data_, 0, bytes_);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() const { return data_; }
  void upload(const T* from) { cudaMemcpy(data_, from, bytes_, cudaMemcpyHostToDevice); }
  void download(T* to) const { cudaMemcpy(to, data_, bytes_, cudaMemcpyDeviceToHost); }

 private:
  T* data_ = nullptr;
  std::size_t bytes_;
};

}  // namespace

int main() try {
  const fattn::Problem problem = fattn::parse_problem("fwd b2 hq16 hk4 sq2048 sk2048 d128 bf16 causal");
  if (fattn::devices().size() < 2) {
    std::printf("there is no GPU here\n");
    return 77;
  }
  const fattn::Plan plan = fattn::plan(problem, fattn::cuda());
  std::printf("%s\n", plan.explain().c_str());

  const std::size_t elements_q = std::size_t{2} * 2048 * 16 * 128, elements_kv = std::size_t{2} * 2048 * 4 * 128;
  DeviceArray<__nv_bfloat16> q(elements_q), k(elements_kv), v(elements_kv), o(elements_q);
  DeviceArray<char> workspace(plan.workspace_bytes());
  const std::vector<__nv_bfloat16> ones(elements_q, __float2bfloat16(1.0F));
  q.upload(ones.data());
  v.upload(ones.data());

  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaDeviceSynchronize();  // the copies above went through another stream
  fattn::run(plan, {.q = q.data(), .k = k.data(), .v = v.data(), .o = o.data()},
             {workspace.data(), plan.workspace_bytes()}, stream);
  const cudaError_t error = cudaStreamSynchronize(stream);
  cudaStreamDestroy(stream);
  if (error != cudaSuccess) {
    std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    return 1;
  }

  std::vector<__nv_bfloat16> result(elements_q);
  o.download(result.data());
  for (const __nv_bfloat16 each : result) {
    if (__bfloat162float(each) != 1.0F) return 1;
  }
  std::printf("o is all ones, as v is\n");
  return 0;
} catch (const fattn::Error& error) {
  std::fprintf(stderr, "%s: %s\n", fattn::to_string(error.status()), error.what());
  return 1;
}
