// SPDX-License-Identifier: Apache-2.0
#include "core/accelerator.hpp"

#include "fattn/error.hpp"

namespace fattn::accelerator {

bool compiled() { return false; }

std::vector<Device> devices() { return {}; }

Where locate(const void*) { return {}; }

void copy_to_host(void*, const void*, std::size_t, int, Stream) {
  throw Error(Status::internal_error, "copy_to_host in a library built without CUDA; nearest: a cpu plan");
}

}  // namespace fattn::accelerator
