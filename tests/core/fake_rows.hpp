// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "core/plan.hpp"

namespace fattn {

// Rows that compute nothing, for tests of the choice and of the checks before a run.
namespace fake {

inline int runs = 0;
inline std::size_t workspace_bytes = 0;
inline constexpr const char* kTile = "64x32, 2 stages";
inline std::string tile = kTile;

inline std::string needs_d128(const Problem& p, const Device&) {
  return p.head_dim == 128 ? std::string() : "head_dim = " + std::to_string(p.head_dim) + ": this row has 128";
}
inline std::string never(const Problem&, const Device&) { return {}; }
inline Launch prepare(const Problem&, const Device& device) {
  return {.shape = {.tile = tile, .grid = 7, .threads = device.threads, .shared_memory_bytes = 4096},
          .workspace_bytes = workspace_bytes,
          .prepared = {}};
}
inline void run(const Run&) { ++runs; }

constexpr Kernel row(std::string_view name, DeviceKind device, Pass pass, bool by_name_only,
                     std::string (*decline)(const Problem&, const Device&) = never) {
  return {name, device, pass, by_name_only, decline, prepare, run};
}
inline constexpr Kernel sm90 = row("sm90_forward", DeviceKind::cuda, Pass::forward, false, needs_d128);
inline constexpr Kernel fast = row("cpu_fast_forward", DeviceKind::cpu, Pass::forward, false, needs_d128);
inline constexpr Kernel plain = row("cpu_plain_forward", DeviceKind::cpu, Pass::forward, false);
inline constexpr Kernel backward = row("cpu_plain_backward", DeviceKind::cpu, Pass::backward, false);
inline constexpr Kernel oracle = row("reference_forward", DeviceKind::cpu, Pass::forward, true);
inline constexpr Kernel oracle_decode = row("reference_decode", DeviceKind::cpu, Pass::decode, true);

inline constexpr std::array table = {Row{"sm90_forward", &sm90},
                                     Row{"cpu_absent_forward", nullptr},
                                     Row{"cpu_fast_forward", &fast},
                                     Row{"cpu_plain_forward", &plain},
                                     Row{"cpu_plain_backward", &backward},
                                     Row{"reference_forward", &oracle},
                                     Row{"reference_decode", &oracle_decode}};

}  // namespace fake

inline Plan fake_plan(std::string_view text, const Device& device = cpu(2), std::string_view forced = {}) {
  return plan_from(fake::table, parse_problem(text), device, forced);
}

}  // namespace fattn
