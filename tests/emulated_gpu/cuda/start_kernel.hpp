// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "emulated_gpu/block.hpp"

namespace fattn::gpu {

// The same as src/cuda/start_kernel.hpp, for the emulated GPU: returns when the kernel has ended.
template <class... Params>
cudaError_t start_kernel(const cudaLaunchConfig_t& config, void (*kernel)(Params...), Params... params) {
  emulated_gpu::run_grid(config.gridDim, config.blockDim, config.dynamicSmemBytes, [&] { kernel(params...); });
  return cudaSuccess;
}

}  // namespace fattn::gpu
