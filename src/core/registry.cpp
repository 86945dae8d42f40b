// SPDX-License-Identifier: Apache-2.0
#include "core/registry.hpp"

#include <array>

namespace fattn {

#define FATTN_ROW(name) extern const Kernel fattn_kernel_##name;
#define FATTN_ABSENT(name)
#include "kernel_table.inc"
#undef FATTN_ROW
#undef FATTN_ABSENT

std::span<const Row> rows() {
#define FATTN_ROW(name) Row{#name, &fattn_kernel_##name},
#define FATTN_ABSENT(name) Row{#name, nullptr},
  static constexpr std::array kRows = {
#include "kernel_table.inc"
  };
#undef FATTN_ROW
#undef FATTN_ABSENT
  return kRows;
}

Pass pass_of(const Row& row) {
  if (row.kernel != nullptr) return row.kernel->pass;
  if (row.name.find("backward") != row.name.npos) return Pass::backward;
  return row.name.find("decode") != row.name.npos ? Pass::decode : Pass::forward;
}

DeviceKind device_of(const Row& row) {
  if (row.kernel != nullptr) return row.kernel->device;
  return row.name.starts_with("sm") || row.name.starts_with("cuda") ? DeviceKind::cuda : DeviceKind::cpu;
}

std::vector<KernelInfo> kernels() {
  std::vector<KernelInfo> all;
  for (const Row& row : rows()) {
    all.push_back({.name = std::string(row.name),
                   .device = device_of(row),
                   .pass = pass_of(row),
                   .compiled = row.kernel != nullptr,
                   .by_name_only = row.kernel != nullptr && row.kernel->by_name_only});
  }
  return all;
}

}  // namespace fattn
