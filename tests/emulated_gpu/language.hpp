// SPDX-License-Identifier: Apache-2.0
#pragma once

// What nvcc adds to C++, for a C++ compiler: included before every source of src/cuda. Everything that only the
// hardware does is in cuda/ptx, which this folder has its own version of.
#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulated_gpu/block.hpp"

// A block runs on one thread of the host.
#undef __shared__
#define __shared__ thread_local
#undef __launch_bounds__
#define __launch_bounds__(...)

extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the coroutine that runs

template <class Number>
constexpr Number min(Number a, Number b) {
  return b < a ? b : a;
}
template <class Number>
constexpr Number max(Number a, Number b) {
  return a < b ? b : a;
}

inline float __uint_as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline std::uint32_t __float_as_uint(float value) { return std::bit_cast<std::uint32_t>(value); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }

// Byte i of the result is the byte of (high, low) that digit i of the selector names.
inline std::uint32_t __byte_perm(std::uint32_t low, std::uint32_t high, std::uint32_t selector) {
  const std::uint64_t both = std::uint64_t{high} << 32 | low;
  std::uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    const std::uint32_t digit = selector >> (4 * i) & 15;
    std::uint32_t byte = static_cast<std::uint32_t>(both >> (8 * (digit & 7))) & 255;
    if (digit & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << (8 * i);
  }
  return result;
}

inline void __syncthreads() { fattn::emulated_gpu::sync_block(); }
inline void __syncwarp() { fattn::emulated_gpu::meet_warp("__syncwarp", {}); }

template <class Value>
Value shuffle(const char* what, Value value, int lane) {
  static_assert(sizeof(Value) <= sizeof(fattn::emulated_gpu::Words));
  fattn::emulated_gpu::Words words{};
  std::memcpy(words.data(), &value, sizeof value);
  const fattn::emulated_gpu::Lanes& lanes = fattn::emulated_gpu::meet_warp(what, words);
  if (lane < 0 || lane > 31) return value;
  std::memcpy(&value, lanes[static_cast<std::size_t>(lane)].data(), sizeof value);
  return value;
}
template <class Value>
Value __shfl_sync(unsigned, Value value, int lane) {
  return shuffle("__shfl_sync", value, lane);
}
template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int mask) {
  return shuffle("__shfl_xor_sync", value, static_cast<int>(threadIdx.x % 32) ^ mask);
}
template <class Value>
Value __shfl_up_sync(unsigned, Value value, int step) {
  return shuffle("__shfl_up_sync", value, static_cast<int>(threadIdx.x % 32) - step);
}
inline int __any_sync(unsigned, int condition) {
  const fattn::emulated_gpu::Lanes& lanes =
      fattn::emulated_gpu::meet_warp("__any_sync", {static_cast<std::uint32_t>(condition != 0)});
  for (const fattn::emulated_gpu::Words& lane : lanes)
    if (lane[0] != 0) return 1;
  return 0;
}

template <class Number, class Operation>
Number change_atomically(Number* at, Operation operation) {
  std::atomic_ref<Number> value(*at);
  Number before = value.load();
  while (!value.compare_exchange_weak(before, operation(before))) {
  }
  return before;
}
template <class Number>
Number atomicAdd(Number* at, Number more) {
  return change_atomically(at, [=](Number before) { return static_cast<Number>(before + more); });
}
template <class Number>
Number atomicMax(Number* at, Number other) {
  return change_atomically(at, [=](Number before) { return before < other ? other : before; });
}
template <class Number>
Number atomicMin(Number* at, Number other) {
  return change_atomically(at, [=](Number before) { return other < before ? other : before; });
}
