// SPDX-License-Identifier: Apache-2.0
#pragma once

// The same as src/cuda/ptx/pin.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

template <class Registers>
void pin(Registers&) {}

}  // namespace fattn::gpu::ptx
