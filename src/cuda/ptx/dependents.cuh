// SPDX-License-Identifier: Apache-2.0
#pragma once

// Kernels launched so that they may begin before the one before them in the stream has ended (LaunchConfig::early).
namespace fattn::gpu::ptx {

// Until the kernels before have ended and their writes are seen. Nothing of theirs may be touched earlier.
__device__ __forceinline__ void wait_for_kernels_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// This block does not mind if the next kernel's blocks start: they wait for what they need.
__device__ __forceinline__ void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace fattn::gpu::ptx
