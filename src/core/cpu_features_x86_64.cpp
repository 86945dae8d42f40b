// SPDX-License-Identifier: Apache-2.0
#include <cpuid.h>

#include <cstdint>
#include <cstring>

#include "core/cpu_features.hpp"

namespace fattn {
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero for a leaf that the processor does not have.
Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

constexpr bool bit(std::uint64_t value, int index) { return (value >> index & 1) != 0; }

// The register state that the operating system saves; 0 when it saves none beyond SSE.
std::uint64_t saved_state() {
  if (!bit(cpuid(1).ecx, 27)) return 0;  // OSXSAVE
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

std::string brand() {
  if (cpuid(0x80000000u).eax < 0x80000004u) return "x86-64";
  char text[49] = {};
  for (unsigned i = 0; i < 3; ++i) {
    const Registers r = cpuid(0x80000002u + i);
    std::memcpy(text + 16 * i, &r, 16);
  }
  std::string name(text);
  name.erase(0, name.find_first_not_of(' '));
  name.erase(name.find_last_not_of(' ') + 1);
  return name.empty() ? "x86-64" : name;
}

}  // namespace

CpuFeatures cpu_features() {
  constexpr std::uint64_t kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000;  // bits of XCR0
  const std::uint64_t saved = saved_state();
  const Registers one = cpuid(1), seven = cpuid(7);
  CpuFeatures features;
  features.name = brand();
  features.avx2 =
      (saved & kYmm) == kYmm && bit(seven.ebx, 5) && bit(one.ecx, 12) && bit(one.ecx, 29);  // AVX2, FMA, F16C
  features.avx512 = (saved & kZmm) == kZmm && features.avx2 && bit(seven.ebx, 16) && bit(seven.ebx, 17) &&
                    bit(seven.ebx, 30) && bit(seven.ebx, 31);  // F, DQ, BW, VL
  features.avx512_bf16 = features.avx512 && bit(cpuid(7, 1).eax, 5);
  features.amx_bf16 =
      (saved & kTiles) == kTiles && features.avx512 && bit(seven.edx, 22) && bit(seven.edx, 24);  // BF16, TILE
  return features;
}

}  // namespace fattn
