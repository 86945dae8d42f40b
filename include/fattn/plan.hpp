// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fattn/device.hpp"
#include "fattn/export.h"
#include "fattn/problem.hpp"

namespace fattn {

// Why a kernel row does not serve a Problem on a Device.
struct Refusal {
  std::string kernel;  // "cpu_amx_forward"
  std::string reason;  // "dtype = fp32: this row has bf16"
};

// How the chosen kernel will run. Zero or empty where it has no meaning.
struct LaunchShape {
  std::string tile;  // "128x128, 2 stages"
  std::int64_t grid = 0;
  std::int64_t threads = 0;  // per block, or CPU worker threads
  std::int64_t shared_memory_bytes = 0;
};

// Memory traffic by the IO model of FlashAttention (Dao et al. 2022, section 3.2), beside that of standard attention,
// which stores the score matrix. In bytes; an estimate for people, never a limit.
struct Traffic {
  double bytes = 0;                  // moved: inputs, outputs and re-reads of K and V by each tile of queries
  double standard_bytes = 0;         // moved, with S and P (backward: P, dP, dS) written to and read from memory
  double memory_bytes = 0;           // held: tensors plus workspace
  double standard_memory_bytes = 0;  // held: tensors plus S and P (backward: P, dP, dS)
};

namespace detail {
struct PlanState;
}

// The choice made for a Problem on a Device: immutable, cheap to copy, shared by threads, safe to cache by value of the
// Problem. Planning does no device work beyond loading the kernel, so run() may be the first call in a graph capture.
class FATTN_EXPORT Plan {
 public:
  explicit Plan(std::shared_ptr<const detail::PlanState> state) : state_(std::move(state)) {}

  const Problem& problem() const;
  const Device& device() const;
  std::string_view kernel() const;      // name of the row
  std::size_t workspace_bytes() const;  // for one run in flight; zeroed once before the first, see docs/api.md
  static constexpr std::size_t workspace_alignment() { return 256; }
  const LaunchShape& launch_shape() const;
  Traffic traffic() const;
  const std::vector<Refusal>& refusals() const;  // rows asked before the winner, in order
  std::string explain() const;                   // all of the above for a person

  const detail::PlanState& state() const { return *state_; }

 private:
  std::shared_ptr<const detail::PlanState> state_;
};

// Walks the rows in order and takes the first that accepts. Throws Error(invalid_argument) for an invalid Problem and
// Error(unsupported) with every refusal when no row accepts. `kernel` forces rows by name (comma separated, the first
// whose pass fits); empty: the environment variable FATTN_KERNEL, if set, does the same.
FATTN_EXPORT Plan plan(const Problem& problem, const Device& device, std::string_view kernel = {});

// A kernel row of this version of the library.
struct KernelInfo {
  std::string name;
  DeviceKind device;
  Pass pass;
  bool compiled = true;       // false: this build leaves it out
  bool by_name_only = false;  // an oracle, never chosen unless named
};
FATTN_EXPORT std::vector<KernelInfo> kernels();  // in the order in which plan() asks them

}  // namespace fattn
