// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fattn/export.h"

namespace fattn {

enum class DeviceKind : std::uint8_t { cpu, cuda };

// A device as a value: what planning needs to know. A Device may describe hardware that is not here (index < 0), and
// plans made for it can be explained but not run.
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = -1;         // CUDA ordinal, 0 for the CPU; -1: described only
  std::string name = {};  // "NVIDIA H200", "AMD EPYC"

  int compute_capability = 0;  // CUDA: 90 for Hopper
  int sm_count = 0;
  std::int64_t shared_memory_per_block = 0;  // opt-in limit, bytes
  std::int64_t l2_bytes = 0;
  std::int64_t memory_bytes = 0;

  int threads = 1;      // CPU: worker threads a plan may use
  bool avx2 = false;    // with FMA and F16C
  bool avx512 = false;  // F, BW, DQ, VL
  bool amx_bf16 = false;
  bool avx512_bf16 = false;  // its dot products of bf16 pairs

  double peak_16bit_tflops = 0;     // dense tensor-core peak; 0: unknown
  double memory_gb_per_second = 0;  // 0: unknown

  friend bool operator==(const Device&, const Device&) = default;
};

FATTN_EXPORT Device cpu();                   // this machine, all its hardware threads
FATTN_EXPORT Device cpu(int threads);        // that many, 1 to 4096; throws Error(invalid_argument)
FATTN_EXPORT Device cuda(int index = 0);     // this machine's GPU; throws Error(device_error) if there is none
FATTN_EXPORT std::vector<Device> devices();  // the CPU, then every GPU
FATTN_EXPORT Device h100();                  // H100 SXM5, described
FATTN_EXPORT Device h200();                  // H200 SXM, described
FATTN_EXPORT Device a100();                  // A100 SXM4, described

// "cpu", "cpu:4" (threads), "cuda", "cuda:1", "h100", "h200", "a100". Throws Error(invalid_argument) for another text,
// Error(device_error) for a GPU that is not here.
FATTN_EXPORT Device parse_device(const std::string& text);

}  // namespace fattn
