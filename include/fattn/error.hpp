// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

#include "fattn/export.h"

namespace fattn {

// The closed list of what can go wrong. The values are those of fattn_status in the C ABI and never change.
enum class Status : int {
  ok = 0,
  invalid_argument = 1,     // a Problem, a buffer or a text that no implementation could accept
  unsupported = 2,          // a valid Problem that no compiled kernel row accepts; the message lists why
  workspace_too_small = 3,  // fewer bytes, or a weaker alignment, than the Plan asked for
  device_error = 4,         // the CUDA runtime or driver returned an error
  device_not_present = 5,   // run() was called with a Plan made for a device that is only described
  out_of_memory = 6,        // host allocation failed (only outside run())
  io_error = 7,             // a file could not be read or written (the tool only)
  internal_error = 8,       // a bug in fattn
};

FATTN_EXPORT const char* to_string(Status status) noexcept;

// The one exception type of the library. what() names the argument, its value and the nearest supported value.
class FATTN_EXPORT Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  ~Error() override;
  Status status() const noexcept { return status_; }

 private:
  Status status_;
};

}  // namespace fattn
