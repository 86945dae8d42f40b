// SPDX-License-Identifier: Apache-2.0
#include "fattn/device.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <thread>

#include "core/accelerator.hpp"
#include "core/cpu_features.hpp"
#include "core/message.hpp"
#include "core/plan.hpp"

namespace fattn {
namespace {

constexpr int kMaxThreads = 4096;

std::int64_t positive_sysconf(int name) { return std::max<std::int64_t>(0, sysconf(name)); }

Device detect_cpu() {
  const CpuFeatures features = cpu_features();
  Device device;
  device.kind = DeviceKind::cpu;
  device.index = 0;
  device.name = features.name;
  device.l2_bytes = positive_sysconf(_SC_LEVEL2_CACHE_SIZE);
  device.memory_bytes = positive_sysconf(_SC_PHYS_PAGES) * positive_sysconf(_SC_PAGESIZE);
  device.threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
  device.avx2 = features.avx2;
  device.avx512 = features.avx512;
  device.avx512_bf16 = features.avx512_bf16;
  device.amx_bf16 = features.amx_bf16;
  return device;
}

// Numbers of the vendors' data sheets: dense 16-bit tensor-core peak, memory bandwidth.
Device described(const char* name, int compute_capability, int sm_count, std::int64_t shared_kib, std::int64_t l2_mib,
                 std::int64_t memory_gib, double tflops, double gb_per_second) {
  Device device;
  device.kind = DeviceKind::cuda;
  device.name = name;
  device.compute_capability = compute_capability;
  device.sm_count = sm_count;
  device.shared_memory_per_block = shared_kib << 10;
  device.l2_bytes = l2_mib << 20;
  device.memory_bytes = memory_gib << 30;
  device.peak_16bit_tflops = tflops;
  device.memory_gb_per_second = gb_per_second;
  return device;
}

int parse_count(std::string_view text, std::string_view whole) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc() && end == text.data() + text.size(), "device = {} needs a number after ':'; nearest: {}",
          in_quotes(whole), whole.starts_with("cpu") ? "cpu:1" : "cuda:0");
  return value;
}

}  // namespace

Device cpu() {
  static const Device device = detect_cpu();
  return device;
}

Device cpu(int threads) {
  require(threads >= 1 && threads <= kMaxThreads, "threads = {} must be in [1, {}]; nearest: {}", threads, kMaxThreads,
          std::clamp(threads, 1, kMaxThreads));
  Device device = cpu();
  device.threads = threads;
  return device;
}

void require_usable(const Device& device) {
  if (device.kind != DeviceKind::cpu) return;
  require(device.threads >= 1 && device.threads <= kMaxThreads, "device.threads = {} must be in [1, {}]; nearest: {}",
          device.threads, kMaxThreads, std::clamp(device.threads, 1, kMaxThreads));
  if (device.index < 0) return;
  static const CpuFeatures here = cpu_features();
  const auto has = [](const char* name, bool named, bool there) {
    require(!named || there, "device.{} = true and this processor has no such instructions; nearest: false", name);
  };
  has("avx2", device.avx2, here.avx2);
  has("avx512", device.avx512, here.avx512);
  has("avx512_bf16", device.avx512_bf16, here.avx512_bf16);
  has("amx_bf16", device.amx_bf16, here.amx_bf16);
}

Device cuda(int index) {
  const std::vector<Device> gpus = accelerator::devices();
  if (gpus.empty()) {
    fail(Status::device_error, "device = cuda:{} is not here: {}; nearest: cpu", index,
         accelerator::compiled() ? "no CUDA driver or GPU was found" : "this library was built without CUDA");
  }
  const int count = static_cast<int>(gpus.size());
  if (index < 0 || index >= count) {
    fail(Status::device_error, "device = cuda:{} is not here; nearest: cuda:{}", index,
         std::clamp(index, 0, count - 1));
  }
  return gpus[static_cast<std::size_t>(index)];
}

std::vector<Device> devices() {
  std::vector<Device> all = {cpu()};
  for (Device& gpu : accelerator::devices()) all.push_back(std::move(gpu));
  return all;
}

Device h100() { return described("NVIDIA H100 SXM5", 90, 132, 227, 50, 80, 989.4, 3352); }
Device h200() { return described("NVIDIA H200 SXM", 90, 132, 227, 50, 141, 989.4, 4800); }
Device a100() { return described("NVIDIA A100 SXM4", 80, 108, 163, 40, 80, 311.9, 2039); }

Device parse_device(const std::string& text) {
  if (text == "cpu") return cpu();
  if (text.starts_with("cpu:")) return cpu(parse_count(std::string_view(text).substr(4), text));
  if (text == "cuda") return cuda();
  if (text.starts_with("cuda:")) return cuda(parse_count(std::string_view(text).substr(5), text));
  if (text == "h100") return h100();
  if (text == "h200") return h200();
  if (text == "a100") return a100();
  static constexpr std::array<std::string_view, 5> kNames = {"cpu", "cuda", "h100", "h200", "a100"};
  fail(Status::invalid_argument, "device = {} is unknown; nearest: {}", in_quotes(text), nearest_word(text, kNames));
}

}  // namespace fattn
