// SPDX-License-Identifier: Apache-2.0
#pragma once

// The same as src/cuda/ptx/dependents.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

// Kernels run one after the other here.
inline void wait_for_kernels_before() {}
inline void let_next_kernel_start() {}

}  // namespace fattn::gpu::ptx
