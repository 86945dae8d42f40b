// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "fattn/fattn.hpp"

namespace fattn::python {

// What one call asks for: the Problem, the device and the rows it may use.
struct Request {
  Problem problem;
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;    // CUDA ordinal
  int threads = 0;  // CPU: 0 is all of the machine
  std::string kernel;
  friend bool operator==(const Request&, const Request&) = default;
};

// A Plan and the number by which Python keeps its workspaces.
struct Planned {
  Plan plan;
  std::int64_t serial;
};

// The plan of a request; made once and kept by value. Null where there is no query row, and so nothing to compute. Safe
// from any thread.
std::shared_ptr<Planned> find_plan(Request request);

// How many plans are kept before all of them are forgotten: packed batches rarely repeat a shape.
inline constexpr std::size_t kMaxPlans = 4096;

}  // namespace fattn::python
