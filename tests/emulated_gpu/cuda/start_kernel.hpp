// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "emulated_gpu/block.hpp"

namespace fattn::gpu {

// The same as src/cuda/start_kernel.hpp, for the emulated GPU: returns when the kernel has ended.
template <class... Params>
cudaError_t start_kernel(const cudaLaunchConfig_t& config, void (*kernel)(Params...), Params... params) {
  for (unsigned i = 0; i < config.numAttrs; i++)
    if (config.attrs[i].id == cudaLaunchAttributeCooperative &&
        config.gridDim.x * config.gridDim.y * config.gridDim.z > static_cast<unsigned>(emulated_gpu::multiprocessors()))
      return cudaErrorCooperativeLaunchTooLarge;
  emulated_gpu::run_grid(config.gridDim, config.blockDim, config.dynamicSmemBytes, [&] { kernel(params...); });
  return cudaSuccess;
}

}  // namespace fattn::gpu
