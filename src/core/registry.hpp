// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "core/kernel.hpp"

namespace fattn {

// A line of cmake/kernels.cmake.
struct Row {
  std::string_view name;
  const Kernel* kernel;  // null: not compiled into this library
};

std::span<const Row> rows();

// By the kernel, or by the row's name where it is not compiled in.
Pass pass_of(const Row& row);
DeviceKind device_of(const Row& row);

}  // namespace fattn
