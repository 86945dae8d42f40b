// SPDX-License-Identifier: Apache-2.0
#include "fattn/device.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <thread>

#include "core/expect_error.hpp"

namespace fattn {
namespace {

TEST(Device, ThisCpu) {
  const Device device = cpu();
  EXPECT_EQ(device.kind, DeviceKind::cpu);
  EXPECT_EQ(device.index, 0);
  EXPECT_FALSE(device.name.empty());
  EXPECT_GT(device.memory_bytes, 0);
  EXPECT_EQ(device.threads, static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  EXPECT_EQ(cpu(3).threads, 3);
  expect_error(Status::invalid_argument, {"threads = 0", "nearest: 1"}, [] { cpu(0); });
  expect_error(Status::invalid_argument, {"threads = 5000", "nearest: 4096"}, [] { cpu(5000); });
}

// The kernel's own list of features is an independent reading of cpuid and XCR0.
TEST(Device, FeaturesAgreeWithTheKernel) {
  std::ifstream info("/proc/cpuinfo");
  std::string line, flags;
  while (std::getline(info, line)) {
    if (line.starts_with("flags")) {
      flags = line + " ";
      break;
    }
  }
  if (flags.empty()) GTEST_SKIP() << "no flags in /proc/cpuinfo";
  const auto has = [&](std::initializer_list<const char*> names) {
    return std::all_of(names.begin(), names.end(),
                       [&](const char* name) { return flags.find(fmt::format(" {} ", name)) != flags.npos; });
  };
  const Device device = cpu();
  EXPECT_EQ(device.avx2, has({"avx2", "fma", "f16c"}));
  EXPECT_EQ(device.avx512, device.avx2 && has({"avx512f", "avx512bw", "avx512dq", "avx512vl"}));
  EXPECT_EQ(device.avx512_bf16, device.avx512 && has({"avx512_bf16"}));
  EXPECT_EQ(device.amx_bf16, device.avx512 && has({"amx_bf16", "amx_tile"}));
}

TEST(Device, DescribedGpus) {
  for (const Device& device : {h100(), h200(), a100()}) {
    EXPECT_EQ(device.kind, DeviceKind::cuda);
    EXPECT_EQ(device.index, -1);
    EXPECT_GT(device.peak_16bit_tflops, 300);
    EXPECT_GT(device.memory_gb_per_second, 2000);
  }
  EXPECT_EQ(h100().compute_capability, 90);
  EXPECT_EQ(h100().shared_memory_per_block, 232448);
  EXPECT_EQ(a100().compute_capability, 80);
}

TEST(Device, AllOfThem) {
  const std::vector<Device> all = devices();
  ASSERT_FALSE(all.empty());
  EXPECT_EQ(all[0], cpu());
  for (std::size_t i = 1; i < all.size(); ++i) EXPECT_EQ(all[i], cuda(static_cast<int>(i) - 1));
  if (all.size() == 1) expect_error(Status::device_error, {"cuda:0", "nearest: cpu"}, [] { cuda(); });
  expect_error(Status::device_error, {"cuda:999"}, [] { cuda(999); });
}

TEST(Device, Text) {
  EXPECT_EQ(parse_device("cpu"), cpu());
  EXPECT_EQ(parse_device("cpu:4"), cpu(4));
  EXPECT_EQ(parse_device("h100"), h100());
  EXPECT_EQ(parse_device("h200"), h200());
  EXPECT_EQ(parse_device("a100"), a100());
  for (const char* text :
       {"", "gpu", "cpu:", "cpu:x", "cpu:0", "cpu:4x", "cpu:99999999999", "H100", "cuda:x", "h100:1"}) {
    expect_error(Status::invalid_argument, {"nearest: "}, [&] { parse_device(text); });
  }
  expect_error(Status::invalid_argument, {"'h10'", "nearest: h100"}, [] { parse_device("h10"); });
}

}  // namespace
}  // namespace fattn
