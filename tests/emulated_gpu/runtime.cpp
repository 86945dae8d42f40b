// SPDX-License-Identifier: Apache-2.0
// What this project calls of the CUDA runtime and the driver, for one emulated GPU. Everything has happened when a
// function returns; graphs are not there.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

#include "emulated_gpu/block.hpp"
#include "emulated_gpu/copies.hpp"

namespace {

thread_local cudaError_t last_error = cudaSuccess;

cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// Around each allocation are addresses that may not be touched, right after its end (but for less than 256 bytes) and
// at most a page before its beginning.
class Memory {
 public:
  void* allocate(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t used = (bytes + 255) / 256 * 256, pages = (used + page - 1) / page * page;
    constexpr std::size_t kGap = std::size_t{16} << 20;
    auto* const mapped = static_cast<unsigned char*>(
        mmap(nullptr, pages + 2 * kGap, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (mapped == MAP_FAILED || mprotect(mapped + kGap, pages, PROT_READ | PROT_WRITE) != 0) return nullptr;
    unsigned char* const data = mapped + kGap + pages - used;
    if (used < (std::size_t{1} << 24)) std::memset(data, 0xA5, used);
    const std::scoped_lock lock(mutex_);
    blocks_[data] = {used, mapped, pages + 2 * kGap};
    return data;
  }

  bool release(void* data) {
    const std::scoped_lock lock(mutex_);
    const auto found = blocks_.find(static_cast<unsigned char*>(data));
    if (found == blocks_.end()) return false;
    munmap(found->second.mapped, found->second.mapped_bytes);
    blocks_.erase(found);
    return true;
  }

  bool contains(const void* pointer) {
    const auto* const at = static_cast<const unsigned char*>(pointer);
    const std::scoped_lock lock(mutex_);
    auto next = blocks_.upper_bound(const_cast<unsigned char*>(at));
    if (next == blocks_.begin()) return false;
    --next;
    return at < next->first + next->second.bytes;
  }

 private:
  struct Block {
    std::size_t bytes;
    void* mapped;
    std::size_t mapped_bytes;
  };
  std::mutex mutex_;
  std::map<unsigned char*, Block> blocks_;
};

Memory& memory() {
  static Memory all;
  return all;
}

// What cuTensorMapEncodeTiled takes, for the maps that the kernels use: five dimensions, the 128-byte swizzle.
CUresult encode_map(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data, const cuuint64_t* extents,
                    const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* steps,
                    CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                    CUtensorMapFloatOOBfill fill) {
  if (rank != 5 || swizzle != CU_TENSOR_MAP_SWIZZLE_128B || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
      fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
    return CUDA_ERROR_NOT_SUPPORTED;
  if (type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 && type != CU_TENSOR_MAP_DATA_TYPE_FLOAT16)
    return CUDA_ERROR_NOT_SUPPORTED;
  if (reinterpret_cast<std::uintptr_t>(data) % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
  fattn::emulated_gpu::TensorMap to{};
  to.mark = fattn::emulated_gpu::TensorMap::kMark;
  to.data = static_cast<unsigned char*>(data);
  to.element_bytes = 2;
  for (int i = 0; i < 5; i++) {
    const bool extent = extents[i] >= 1 && extents[i] <= (cuuint64_t{1} << 32), width = box[i] >= 1 && box[i] <= 256;
    const bool stride = i == 0 || (strides[i - 1] % 16 == 0 && strides[i - 1] < (cuuint64_t{1} << 40));
    if (!extent || !width || !stride || steps[i] != 1) return CUDA_ERROR_INVALID_VALUE;
    to.extents[i] = static_cast<std::uint32_t>(extents[i]);
    to.box[i] = box[i];
    if (i > 0) to.strides[i - 1] = strides[i - 1];
  }
  if (box[0] * to.element_bytes > 128 || box[0] * to.element_bytes % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
  std::memset(map, 0, sizeof *map);
  std::memcpy(map, &to, sizeof to);
  return CUDA_SUCCESS;
}

CUresult replace_address(CUtensorMap* map, void* data) {
  fattn::emulated_gpu::TensorMap to{};
  std::memcpy(&to, map, sizeof to);
  if (to.mark != fattn::emulated_gpu::TensorMap::kMark || reinterpret_cast<std::uintptr_t>(data) % 16 != 0)
    return CUDA_ERROR_INVALID_VALUE;
  to.data = static_cast<unsigned char*>(data);
  std::memcpy(map, &to, sizeof to);
  return CUDA_SUCCESS;
}

}  // namespace

bool fattn::emulated_gpu::in_device_memory(const void* pointer) { return memory().contains(pointer); }

struct CUevent_st {
  std::chrono::steady_clock::time_point at;
};

extern "C" {

CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute* wanted, void** answers, CUdeviceptr pointer) {
  const bool found = memory().contains(reinterpret_cast<const void*>(pointer));
  for (unsigned i = 0; i < count; i++) {
    const bool ordinal = wanted[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
    const bool type = wanted[i] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    const int answer = ordinal ? (found ? 0 : -1) : type && found ? CU_MEMORYTYPE_DEVICE : 0;
    std::memcpy(answers[i], &answer, sizeof answer);
  }
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return report(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int) {
  std::snprintf(id, static_cast<std::size_t>(size), "emulated");
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 0, cudaSuccess; }

// An H200 with few multiprocessors.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(properties, 0, sizeof *properties);
  std::snprintf(properties->name, sizeof properties->name, "emulated H200");
  properties->major = 9;
  properties->multiProcessorCount = fattn::emulated_gpu::multiprocessors();
  properties->sharedMemPerBlockOptin = 227 * 1024;
  properties->l2CacheSize = 50 << 20;
  properties->totalGlobalMem = std::size_t{8} << 30;
  properties->memoryBusWidth = 6144;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
const char* cudaGetErrorName(cudaError_t error) { return error == cudaSuccess ? "cudaSuccess" : "emulated GPU"; }
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorNotSupported: return "the emulated GPU has no such function";
    case cudaErrorMemoryAllocation: return "out of memory";
    default: return "an argument is wrong";
  }
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  *data = memory().allocate(bytes);
  return report(*data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaFree(void* data) {
  return report(data == nullptr || memory().release(data) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  *data = std::malloc(bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) { return std::free(data), cudaSuccess; }
cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* total) {
  return *available = *total = std::size_t{8} << 30, cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  return std::memmove(to, from, bytes), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  return std::memmove(to, from, bytes), cudaSuccess;
}
cudaError_t cudaMemset(void* to, int byte, std::size_t bytes) { return std::memset(to, byte, bytes), cudaSuccess; }
cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t) {
  return std::memset(to, byte, bytes), cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  return std::memset(attributes, 0, sizeof *attributes), cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  *function = nullptr;
  if (std::string_view(name) == "cuTensorMapEncodeTiled") *function = reinterpret_cast<void*>(encode_map);
  if (std::string_view(name) == "cuTensorMapReplaceAddress") *function = reinterpret_cast<void*>(replace_address);
  *found = *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return *stream = nullptr, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t function, void* data) { return function(data), cudaSuccess; }

cudaError_t cudaEventCreate(cudaEvent_t* event) { return *event = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->at = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->at - begin->at).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) { return report(cudaErrorNotSupported); }
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) { return report(cudaErrorNotSupported); }
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) {
  return report(cudaErrorNotSupported);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return report(cudaErrorNotSupported); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }

}  // extern "C"
