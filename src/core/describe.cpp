// SPDX-License-Identifier: Apache-2.0
#include "core/describe.hpp"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace fattn {

std::string three_digits(double value) {
  const double size = std::fabs(value);
  if (size == 0) return "0";
  if (size < 0.1) return fmt::format("{:.2g}", value);
  const int decimals = size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}", value, decimals);
}

std::string bytes_text(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  while (std::fabs(bytes) >= 1000 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{} {}", unit == 0 ? fmt::format("{:.0f}", bytes) : three_digits(bytes), kUnits[unit]);
}

std::string count_text(double count, std::string_view unit) {
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  std::size_t prefix = 0;
  while (std::fabs(count) >= 999.5 && prefix + 1 < std::size(kPrefixes)) {
    count /= 1000;
    ++prefix;
  }
  return fmt::format("{} {}{}", prefix == 0 ? fmt::format("{:.6g}", count) : three_digits(count), kPrefixes[prefix],
                     unit);
}

std::string device_text(const Device& device) {
  std::string text = device.name;
  if (device.kind == DeviceKind::cpu) {
    text += fmt::format(", {} thread{}", device.threads, device.threads == 1 ? "" : "s");
    if (device.avx2) text += ", AVX2";
    if (device.avx512) text += ", AVX-512";
    if (device.avx512_bf16) text += ", AVX512_BF16";
    if (device.amx_bf16) text += ", AMX";
    return text;
  }
  if (device.index >= 0) text += fmt::format(" (cuda:{})", device.index);
  text += fmt::format(", sm{}, {} SMs", device.compute_capability, device.sm_count);
  if (device.memory_bytes > 0) text += fmt::format(", {}", bytes_text(static_cast<double>(device.memory_bytes)));
  if (device.peak_16bit_tflops > 0) text += fmt::format(", {:.0f} TFLOP/s", device.peak_16bit_tflops);
  if (device.memory_gb_per_second > 0) text += fmt::format(", {:.0f} GB/s", device.memory_gb_per_second);
  return text + (device.index < 0 ? "; described only: not on this machine" : "");
}

std::string launch_text(const Plan& plan) {
  const LaunchShape& shape = plan.launch_shape();
  const bool cpu = plan.device().kind == DeviceKind::cpu;
  std::string text = shape.tile.empty() ? "no tiles" : "tile " + shape.tile;
  if (shape.grid > 0) text += fmt::format("; {} {}", shape.grid, cpu ? "work items" : "blocks");
  if (shape.threads > 0) {
    text += fmt::format(" {} {} thread{}", cpu ? "for" : "of", shape.threads, shape.threads == 1 ? "" : "s");
  }
  if (shape.shared_memory_bytes > 0) {
    text += fmt::format(", {} shared memory", bytes_text(static_cast<double>(shape.shared_memory_bytes)));
  }
  return text;
}

std::vector<Refusal> grouped(const std::vector<Refusal>& refusals) {
  std::vector<Refusal> groups;
  for (std::size_t begin = 0, end; begin < refusals.size(); begin = end) {
    end = begin + 1;
    while (end < refusals.size() && refusals[end].reason == refusals[begin].reason) ++end;
    groups.push_back(refusals[begin]);
    if (end - begin > 1) groups.back().kernel += fmt::format(" and {} more", end - begin - 1);
  }
  return groups;
}

}  // namespace fattn
