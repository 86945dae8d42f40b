// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "fattn/error.hpp"
#include "timer.hpp"

namespace fattn::tool {

namespace {

void require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw Error(Status::device_error, std::string(what) + ": " + cudaGetErrorString(error));
}

// The driver's management library, opened at run time: the clock is extra and never a reason to fail.
class SmClock {
 public:
  explicit SmClock(int device) {
    library_ = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) return;
    const auto init = symbol<int (*)()>("nvmlInit_v2");
    const auto by_bus = symbol<int (*)(const char*, void**)>("nvmlDeviceGetHandleByPciBusId_v2");
    clock_info_ = symbol<int (*)(void*, int, unsigned*)>("nvmlDeviceGetClockInfo");
    char bus[32] = {};
    if (init == nullptr || by_bus == nullptr || clock_info_ == nullptr || init() != 0) return;
    if (cudaDeviceGetPCIBusId(bus, sizeof bus, device) != cudaSuccess || by_bus(bus, &handle_) != 0) handle_ = nullptr;
  }
  ~SmClock() {
    if (library_ != nullptr) ::dlclose(library_);
  }
  SmClock(const SmClock&) = delete;
  SmClock& operator=(const SmClock&) = delete;

  std::optional<double> mhz() const {
    constexpr int kSm = 1;
    unsigned value = 0;
    if (handle_ == nullptr || clock_info_(handle_, kSm, &value) != 0) return std::nullopt;
    return value;
  }

 private:
  template <class Function>
  Function symbol(const char* name) const {
    return reinterpret_cast<Function>(::dlsym(library_, name));
  }

  void* library_ = nullptr;
  void* handle_ = nullptr;
  int (*clock_info_)(void*, int, unsigned*) = nullptr;
};

class CudaBurst final : public Burst {
 public:
  CudaBurst(const Device& device, const std::function<void(Stream)>& call)
      : device_(device.index), clock_(device.index) {
    require(cudaSetDevice(device_), "cudaSetDevice");
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    require(cudaEventCreate(&begin_), "cudaEventCreate");
    require(cudaEventCreate(&end_), "cudaEventCreate");
    for (int i = 0; i < 3; ++i) call(stream_);
    require(cudaStreamSynchronize(stream_), "warming up");
    const double one_ms = elapsed_ms([&] {
                            call(stream_);
                            call(stream_);
                          }) /
                          2;
    calls_ = static_cast<int>(std::clamp(kBurstMs / std::max(one_ms, 1e-3), 1.0, double{kMostCalls}));

    cudaGraph_t graph = nullptr;
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    for (int i = 0; i < calls_; ++i) call(stream_);
    require(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    const cudaError_t made = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    require(made, "cudaGraphInstantiate");
    require(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch");
    require(cudaStreamSynchronize(stream_), "the first burst");
  }

  ~CudaBurst() override {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    if (end_ != nullptr) cudaEventDestroy(end_);
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  Sample sample() override {
    require(cudaSetDevice(device_), "cudaSetDevice");
    std::this_thread::sleep_for(std::chrono::milliseconds(kIdleMs));
    Sample sample;
    const double ms =
        elapsed_ms([&] { require(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch"); }, &sample.sm_clock_mhz);
    sample.us = ms * 1e3 / calls_;
    return sample;
  }

 private:
  template <class Body>
  double elapsed_ms(Body body, std::optional<double>* mhz = nullptr) {
    require(cudaEventRecord(begin_, stream_), "cudaEventRecord");
    body();
    require(cudaEventRecord(end_, stream_), "cudaEventRecord");
    if (mhz != nullptr) *mhz = clock_.mhz();  // while the burst runs
    require(cudaEventSynchronize(end_), "a timed burst");
    float ms = 0;
    require(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    return double{ms};
  }

  int device_;
  SmClock clock_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
  cudaGraphExec_t graph_ = nullptr;
  int calls_ = 1;
};

}  // namespace

std::unique_ptr<Burst> cuda_burst(const Device& device, const std::function<void(Stream)>& call) {
  return std::make_unique<CudaBurst>(device, call);
}

}  // namespace fattn::tool
