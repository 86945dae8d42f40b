// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fattn::gpu::ptx {

// Registers a thread of this warpgroup may use from here on; a multiple of 8. Takes effect only in kernels with a
// register cap at entry (__launch_bounds__).
template <int registers>
__device__ __forceinline__ void setmaxnreg_inc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers>
__device__ __forceinline__ void setmaxnreg_dec() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

}  // namespace fattn::gpu::ptx
