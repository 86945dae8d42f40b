// SPDX-License-Identifier: Apache-2.0
#include "algebra/softmax_state.hpp"
#include "cuda/common/merge.hpp"
#include "cuda/launch.hpp"
#include "cuda/ptx/arithmetic.cuh"

namespace fattn::gpu {
namespace {

constexpr int kWarps = 4;  // of a block, one row each

// Weight of a part in the whole, from logarithms; a part or a whole without keys weighs nothing.
__device__ float weight(float lse, float whole) { return whole == -INFINITY ? 0.f : expf(lse - whole); }

__global__ void __launch_bounds__(32 * kWarps) merge(const __grid_constant__ MergeParams p) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= p.rows) return;
  const int lane = threadIdx.x % 32;
  const std::int64_t head_index = row / p.rows_per_head, position = row - head_index * p.rows_per_head;
  const int head = static_cast<int>(head_index % p.heads);
  const std::int64_t batch = p.packed ? 0 : head_index / p.heads;

  float top = -INFINITY;
  for (int split = 0; split < p.splits; split++) top = larger(top, p.partial_lse[split * p.rows + row]);
  const bool counts = top != kUncounted;
  if (!counts) top = -INFINITY;
  const bool keys = top != -INFINITY;
  const float sink = p.sinks != nullptr && counts ? p.sinks[head] : -INFINITY;
  top = larger(top, sink);
  float sum = weight(sink, top);
  for (int split = 0; keys && split < p.splits; split++) sum += weight(p.partial_lse[split * p.rows + row], top);
  const float whole = top == -INFINITY ? top : top + logf(sum);

  auto* out = static_cast<std::uint16_t*>(p.o) + batch * p.o_batch + position * p.o_row + head * p.o_head;
  for (int column = 2 * lane; column < p.columns; column += 64) {
    float x = 0.f, y = 0.f;
    for (int split = 0; keys && split < p.splits; split++) {
      const float part = weight(p.partial_lse[split * p.rows + row], whole);
      if (part == 0.f) continue;
      const auto two = *reinterpret_cast<const float2*>(p.partial_o + (split * p.rows + row) * p.columns + column);
      x = fmaf(part, two.x, x);
      y = fmaf(part, two.y, y);
    }
    *reinterpret_cast<std::uint32_t*>(out + column) =
        p.dtype == DType::bf16 ? ptx::pack<ptx::Bf16>(x, y) : ptx::pack<ptx::Fp16>(x, y);
  }
  if (p.lse != nullptr && lane == 0) p.lse[row] = whole;
}

}  // namespace

void load_merge(const Device& device) { load_kernel(device, "merge", merge, 0); }

void merge_splits(const MergeParams& params, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((params.rows + kWarps - 1) / kWarps);
  launch("merge", merge, {.grid = dim3(blocks), .block = dim3(32 * kWarps)}, stream, params);
}

}  // namespace fattn::gpu
