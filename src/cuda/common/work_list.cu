// SPDX-License-Identifier: Apache-2.0
#include "cuda/common/counting_sort.cuh"
#include "cuda/common/work_list.hpp"
#include "cuda/launch.hpp"
#include "cuda/ptx/dependents.cuh"

namespace fattn::gpu {
namespace {

constexpr int kThreads = 1024;

// The class of a tile by the key tiles it walks.
__device__ int cost_class(const WorkListParams& p, const SequenceRows& q, const SequenceRows& k, int row, int most) {
  const int rows = q.used * p.rows_per_query;
  if (row >= rows) return kClasses - 1;
  const int first = row / p.rows_per_query, last = (min_of(row + p.tile_rows, rows) - 1) / p.rows_per_query;
  const TileRange range = Band::of(p.mask, q.used, k.used).tiles(first, last + 1, p.tile_keys);
  return (kClasses - 1) - (range.end - range.begin) * (kClasses - 1) / most;
}

// A counting sort by one block, a warp for each sequence. Entries of one class come in any order: no result depends on
// it.
__global__ void __launch_bounds__(kThreads) work_list(const __grid_constant__ WorkListParams p) {
  __shared__ int places[kClasses];
  ptx::let_next_kernel_start();
  ptx::wait_for_kernels_before();
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  if (p.max_logit != nullptr)
    for (int head = thread; head < p.heads; head += kThreads) p.max_logit[head] = -INFINITY;
  if (p.tiles == nullptr) return;
  if (thread < kClasses) places[thread] = 0;
  __syncthreads();
  const int most = max_of(1, ceil_div(p.lengths.k.seqlen, p.tile_keys) + 1);
  const auto each = [&](auto&& visit) {
    for (int index = warp; index < p.lengths.sequences(); index += kThreads / 32) {
      const SequenceRows q = p.lengths.queries(index), k = p.lengths.keys(index);
      for (int row = lane * p.tile_rows; row < q.rows * p.rows_per_query; row += 32 * p.tile_rows)
        visit({{index, row}, q, k}, cost_class(p, q, k, row, most));
    }
  };
  each([&](const PlacedTile&, int cost) { atomicAdd(&places[cost], 1); });
  __syncthreads();
  if (warp == 0) {
    const int count = min_of(sizes_to_places(places), p.capacity);
    if (lane == 0) *p.count = count;
  }
  __syncthreads();
  each([&](const PlacedTile& tile, int cost) {
    const int place = atomicAdd(&places[cost], 1);
    if (place < p.capacity) p.tiles[place] = tile;
  });
}

}  // namespace

std::int64_t work_list_capacity(const VarlenLengths& lengths, int rows_per_query, int tile_rows) {
  const std::int64_t sequences = lengths.sequences();
  if (lengths.q.cu_seqlens != nullptr) return std::int64_t{lengths.q.total} * rows_per_query / tile_rows + sequences;
  return (std::int64_t{lengths.q.seqlen} * rows_per_query + tile_rows - 1) / tile_rows * sequences;
}

void load_work_list(const Device& device) { load_kernel(device, "work list", work_list, 0); }

void make_work_list(const WorkListParams& params, cudaStream_t stream) {
  launch("work list", work_list, {.block = dim3(kThreads), .early = true}, stream, params);
}

}  // namespace fattn::gpu
