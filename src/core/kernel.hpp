// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/buffer_table.hpp"
#include "fattn/attention.hpp"

namespace fattn {

// What a row decided about a Problem it accepted. `prepared` carries whatever its run() wants precomputed; immutable.
struct Launch {
  LaunchShape shape;
  std::size_t workspace_bytes = 0;
  std::shared_ptr<const void> prepared;
};

// Everything run() of a row may look at. Buffers are checked; the workspace is large enough and aligned.
struct Run {
  const Problem& problem;
  const Device& device;
  const Launch& launch;
  const Buffers& buffers;
  Workspace workspace;
  Stream stream;
};

// One row of the registry: a compiled kernel. Rows are plain constants, listed in order by cmake/kernels.cmake.
struct Kernel {
  std::string_view name;
  DeviceKind device;
  Pass pass;
  bool by_name_only = false;  // oracles: never a silent fallback
  // Empty: accepted. Otherwise the reason, naming the argument, the value and the nearest supported value.
  std::string (*decline)(const Problem&, const Device&) = nullptr;
  // Tile, grid and workspace; loads device code when the device is present, so that run() works inside graph capture.
  Launch (*prepare)(const Problem&, const Device&) = nullptr;
  void (*run)(const Run&) = nullptr;
};

namespace detail {
struct PlanState {
  Problem problem;
  Device device;
  const Kernel* kernel = nullptr;
  std::vector<BufferEntry> buffers;  // what run() checks
  Launch launch;
  std::vector<Refusal> refusals;
};
}  // namespace detail

}  // namespace fattn
