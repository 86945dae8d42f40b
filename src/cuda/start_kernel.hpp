// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

namespace fattn::gpu {

// The runtime reads the arguments by address: these are copies, of the parameters' own types.
template <class... Params>
cudaError_t start_kernel(const cudaLaunchConfig_t& config, void (*kernel)(Params...), Params... params) {
  void* addresses[] = {static_cast<void*>(&params)...};
  return cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), addresses);
}

}  // namespace fattn::gpu
