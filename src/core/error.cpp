// SPDX-License-Identifier: Apache-2.0
#include "fattn/error.hpp"

namespace fattn {

Error::~Error() = default;  // here, so that every library that throws Error shares one type

const char* to_string(Status status) noexcept {
  switch (status) {
    case Status::ok: return "ok";
    case Status::invalid_argument: return "invalid_argument";
    case Status::unsupported: return "unsupported";
    case Status::workspace_too_small: return "workspace_too_small";
    case Status::device_error: return "device_error";
    case Status::device_not_present: return "device_not_present";
    case Status::out_of_memory: return "out_of_memory";
    case Status::io_error: return "io_error";
    case Status::internal_error: return "internal_error";
  }
  return "unknown status";
}

}  // namespace fattn
