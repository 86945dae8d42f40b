// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fattn::gpu::sm90 {

// Named barriers of the forward kernel. 0 is __syncthreads.
enum class ForwardBarrier : int {
  // turn + w: computing warpgroup w waits for its turn to issue matrix products; the one before it arrives when it has
  // issued its own. 256 threads.
  turn = 1,
  // warps + w: the four warps of computing warpgroup w meet. 128 threads.
  warps = 4,
};
inline constexpr int kMaxComputeWarpgroups = 3;

// Named barriers of the backward kernel.
enum class BackwardBarrier : int {
  // All computing warpgroups meet.
  compute = 1,
  // warps + w: the four warps of computing warpgroup w meet. 128 threads.
  warps = 2,
};

}  // namespace fattn::gpu::sm90
