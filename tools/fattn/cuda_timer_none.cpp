// SPDX-License-Identifier: Apache-2.0
#include "fattn/error.hpp"
#include "timer.hpp"

namespace fattn::tool {

std::unique_ptr<Burst> cuda_burst(const Device&, const std::function<void(Stream)>&) {
  throw Error(Status::device_not_present, "this build has no CUDA code");
}

}  // namespace fattn::tool
