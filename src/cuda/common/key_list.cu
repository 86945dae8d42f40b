// SPDX-License-Identifier: Apache-2.0
#include "cuda/common/counting_sort.cuh"
#include "cuda/common/key_list.hpp"
#include "cuda/launch.hpp"

namespace fattn::gpu {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;

// The largest value of this thread and those before it.
__device__ int largest_so_far(int value, int (&of_warps)[kWarps]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int step = 1; step < 32; step *= 2) {
    const int before = __shfl_up_sync(~0u, value, step);
    if (lane >= step) value = max_of(value, before);
  }
  if (lane == 31) of_warps[warp] = value;
  __syncthreads();
  for (int before = 0; before < warp; before++) value = max_of(value, of_warps[before]);
  __syncthreads();
  return value;
}

__device__ void copy_lengths(const SideLengths& side, int batch, std::int32_t* to) {
  __shared__ int of_warps[kWarps];
  int so_far = 0;
  for (int first = 0; first <= batch; first += kThreads) {
    const int index = first + static_cast<int>(threadIdx.x);
    const int given = index <= batch ? min_of(max_of(side.cu_seqlens[index], 0), side.total) : 0;
    const int largest = largest_so_far(max_of(given, so_far), of_warps);
    if (index <= batch) to[index] = largest;
    if (threadIdx.x == kThreads - 1) of_warps[0] = largest;
    __syncthreads();
    so_far = of_warps[0];
    __syncthreads();
  }
}

// A counting sort of whole sequences by one block. Those of one class come in any order: no result depends on it.
__global__ void __launch_bounds__(kThreads) key_list(const __grid_constant__ KeyListParams p) {
  __shared__ int places[kClasses];
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, batch = p.lengths.batch;
  VarlenLengths lengths = p.lengths;
  if (p.cu_seqlens_q != nullptr) copy_lengths(lengths.q, batch, p.cu_seqlens_q), lengths.q.cu_seqlens = p.cu_seqlens_q;
  if (p.cu_seqlens_k != nullptr) copy_lengths(lengths.k, batch, p.cu_seqlens_k), lengths.k.cu_seqlens = p.cu_seqlens_k;
  if (p.tiles == nullptr) return;
  if (thread < kClasses) places[thread] = 0;
  __syncthreads();
  const auto tiles_of = [&](int index) {
    const SequenceRows rows = index == batch ? rows_behind(lengths.k, batch) : sequence_rows(lengths.k, index);
    return ceil_div(rows.rows, p.tile_keys);
  };
  const auto class_of = [&](int index) {
    const std::int64_t used = index == batch ? 0 : sequence_rows(lengths.q, index).used;
    return kClasses - 1 - static_cast<int>(used * (kClasses - 1) / max_of(1, lengths.q.seqlen));
  };
  for (int index = thread; index <= batch; index += kThreads) atomicAdd(&places[class_of(index)], tiles_of(index));
  __syncthreads();
  if (warp == 0) {
    const int count = min_of(sizes_to_places(places), p.capacity);
    if (lane == 0) *p.count = count;
  }
  __syncthreads();
  for (int index = warp; index <= batch; index += kWarps) {
    const int tiles = tiles_of(index);
    int first = 0;
    if (lane == 0) first = atomicAdd(&places[class_of(index)], tiles);
    first = __shfl_sync(~0u, first, 0);
    for (int tile = lane; tile < tiles && first + tile < p.capacity; tile += 32)
      p.tiles[first + tile] = {index, tile * p.tile_keys};
  }
}

}  // namespace

std::int64_t key_list_capacity(const VarlenLengths& lengths, int tile_keys) {
  return std::int64_t{lengths.k.total} / tile_keys + lengths.batch + 1;
}

void load_key_list(const Device& device) { load_kernel(device, "key list", key_list, 0); }

void make_key_list(const KeyListParams& params, cudaStream_t stream) {
  launch("key list", key_list, {.block = dim3(kThreads)}, stream, params);
}

}  // namespace fattn::gpu
