// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "emulated_gpu/block.hpp"

// The same as src/cuda/ptx/setmaxnreg.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

template <int registers>
void setmaxnreg_inc() {
  emulated_gpu::meet_warp("setmaxnreg.inc", {});
}
template <int registers>
void setmaxnreg_dec() {
  emulated_gpu::meet_warp("setmaxnreg.dec", {});
}

}  // namespace fattn::gpu::ptx
