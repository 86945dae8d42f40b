// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/ptx/mbarrier.cuh"

namespace fattn::gpu::tile {

// The barriers of a ring of tiles in shared memory: the loader fills a stage and the copy engine completes `full`; the
// readers arrive at `empty` when they are done with it.
template <int stages>
struct RingBarriers {
  std::uint64_t full[stages];
  std::uint64_t empty[stages];
};

// Where one side of a ring stands. Parity flips each time round.
template <int stages>
class RingPosition {
 public:
  __device__ __forceinline__ explicit RingPosition(std::uint32_t barriers) : barriers_(barriers) {}

  __device__ __forceinline__ static void init(std::uint32_t barriers, int readers) {
    for (int stage = 0; stage < stages; stage++) {
      ptx::mbarrier_init(barriers + 8 * stage, 1);
      ptx::mbarrier_init(barriers + 8 * (stages + stage), readers);
    }
  }

  __device__ __forceinline__ int stage() const { return stage_; }
  __device__ __forceinline__ int stage_before() const { return stage_ == 0 ? stages - 1 : stage_ - 1; }
  __device__ __forceinline__ std::uint32_t full() const { return barriers_ + 8 * stage_; }
  __device__ __forceinline__ std::uint32_t empty(int stage) const { return barriers_ + 8 * (stages + stage); }

  __device__ __forceinline__ void wait_full() const { ptx::mbarrier_wait(full(), parity_); }
  __device__ __forceinline__ void wait_empty() const { ptx::mbarrier_wait(empty(stage_), parity_ ^ 1); }

  // For a reader: until the others are done with the tile as well.
  __device__ __forceinline__ void wait_read() const { ptx::mbarrier_wait(empty(stage_), parity_); }

  __device__ __forceinline__ void advance() {
    stage_ = stage_ + 1 == stages ? 0 : stage_ + 1;
    parity_ ^= stage_ == 0;
  }

 private:
  std::uint32_t barriers_;
  int stage_ = 0;
  std::uint32_t parity_ = 0;
};

// The same from a count of steps, for loops that have one anyway: stage and parity of a ring at a step.
template <int stages>
struct RingStep {
  __device__ __forceinline__ static int stage(int step) { return step % stages; }
  __device__ __forceinline__ static std::uint32_t parity(int step) { return step / stages % 2; }
};

}  // namespace fattn::gpu::tile
