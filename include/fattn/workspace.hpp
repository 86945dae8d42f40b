// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "fattn/attention.hpp"
#include "fattn/export.h"

namespace fattn {

// Owns the workspace of a CPU plan: Plan::workspace_bytes() of zeros, aligned as plans ask for. One for each run in
// flight.
class FATTN_EXPORT HostWorkspace {
 public:
  // Throws Error(invalid_argument) for a plan of another device, Error(out_of_memory).
  explicit HostWorkspace(const Plan& plan);
  operator Workspace() const { return {data_.get(), bytes_}; }

 private:
  struct Release {
    void operator()(void* data) const noexcept;
  };
  std::unique_ptr<void, Release> data_;
  std::size_t bytes_;
};

}  // namespace fattn
