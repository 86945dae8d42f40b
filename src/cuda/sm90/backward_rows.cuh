// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

#include "cuda/ptx/arithmetic.cuh"
#include "cuda/ptx/dependents.cuh"
#include "cuda/sm90/backward_rows.hpp"

// The kernels before and after the backward kernel: what it needs of each query row, and dQ in the caller's tensor.
namespace fattn::gpu::sm90 {

inline constexpr int kRowThreads = 256;
inline constexpr int kRowsAThread = 4;  // of the kernel before
inline constexpr int kSinkThreads = 512;

// Of the kernel before: 8 columns each, those of a row in one warp.
constexpr int lanes_of_row(int d) { return static_cast<int>(std::bit_ceil(static_cast<unsigned>(d / 8))); }

// Eight elements of a row, from column 8 * chunk.
__device__ __forceinline__ uint4 load_chunk(const RowTensor& tensor, long long row, int chunk) {
  const auto* const from = static_cast<const std::uint16_t*>(tensor.data) + row;
  if (tensor.chunks) return reinterpret_cast<const uint4*>(from)[chunk];
  std::uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const long long column = 8 * chunk + 2 * i;
    pairs[i] = from[column * tensor.strides.dim] | static_cast<std::uint32_t>(from[(column + 1) * tensor.strides.dim])
                                                       << 16;
  }
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

__device__ __forceinline__ long long row_of(const RowTensor& tensor, int batch, int query, int head) {
  return batch * tensor.strides.batch + query * tensor.strides.seqlen + head * tensor.strides.head;
}

template <class Element>
__device__ __forceinline__ float dot(const uint4& a, const uint4& b) {
  const std::uint32_t left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float x[2], y[2];
    ptx::unpack<Element>(left[i], x[0], x[1]);
    ptx::unpack<Element>(right[i], y[0], y[1]);
    sum = fmaf(x[0], y[0], fmaf(x[1], y[1], sum));
  }
  return sum;
}

// They are templates of the tile's numbers: m query rows, n keys, `parts` of dQ.

// A row of the workspace: of which query and head, and where it lies in the caller's tensors.
struct PreparedRow {
  QueryRows rows;
  int padded_row;
  int head;
  int query;
  int buffer_row;
  bool exists;  // in the workspace
  bool inside;  // its sequence
};

__device__ __forceinline__ PreparedRow prepared_row(const BackwardRowParams& params, int batch, int index, int m) {
  const int heads = params.rows.heads_q;
  PreparedRow row{};
  row.padded_row = index / heads;
  row.head = index - row.padded_row * heads;
  row.rows = query_rows(params.lengths, batch, row.padded_row / m, m);
  row.query = row.rows.first + row.padded_row % m;
  row.buffer_row = row.rows.sequence.begin + row.query;
  row.exists = row.padded_row < params.rows.query_tiles * m;
  row.inside = row.exists && row.query < row.rows.sequence.used;
  return row;
}

// What the backward kernel needs of a row, and of a tile whose first it is; `given` is its LSE, `sum` rowsum(dO * O).
template <int m, int n, int parts>
__device__ __forceinline__ void store_row(const BackwardRowParams& params, const PreparedRow& at, int row, float given,
                                          float dlse, float sum) {
  const bool some = at.inside && given != -INFINITY;  // else the row has no key: infinity makes every weight 0
  params.rows.lse[row] = some ? fmaf(given, kLog2e, -static_cast<float>(params.rows.shift)) : INFINITY;
  params.rows.delta[row] = some ? dlse - sum : 0.f;
  if (params.rows.turns == nullptr || at.padded_row % m != 0) return;
  const Band mask = Band::of(params.limits, at.rows.sequence.used, params.lengths.keys(at.rows.index).used);
  const int first = mask.tiles(at.query, min_of(at.query + m, at.rows.sequence.used), n).begin;
#pragma unroll
  for (int part = 0; part < parts; part++)
    params.rows.turns[row / m * parts + part] = params.rows.zeroed ? first : params.rows.in_turn ? ~first : -1;
}

// For each query row, by d / 8 lanes or a few more: LSE in powers of two, rowsum(dO * O) - dLSE, zeros in the sums of
// dQ; where asked for, a copy of dO and the turns of each tile. A thread has several rows, whose loads are all on their
// way at once. Blocks: batch * blocks_of_rows.
template <class Element, int d, int m, int n, int parts>
__global__ void __launch_bounds__(kRowThreads) backward_prepare(const __grid_constant__ BackwardRowParams params) {
  constexpr int lanes = lanes_of_row(d), step_rows = kRowThreads / lanes, block_rows = kRowsAThread * step_rows;
  static_assert(kRowsAThread <= lanes, "each row's LSE has a lane of its own");
  ptx::let_next_kernel_start();
  const int heads = params.rows.heads_q, padded = params.rows.query_tiles * m;
  const int blocks = (padded * heads + block_rows - 1) / block_rows;
  const int batch = blockIdx.x / blocks, lane = threadIdx.x % lanes;
  const int first = (blockIdx.x - batch * blocks) * block_rows + threadIdx.x / lanes;
  const auto row_at = [&](int step) { return prepared_row(params, batch, first + step * step_rows, m); };
  const auto row_of_workspace = [&](const PreparedRow& at) {
    return (batch * heads + at.head) * padded + at.padded_row;
  };

  uint4 o[kRowsAThread], dout[kRowsAThread];
#pragma unroll
  for (int step = 0; step < kRowsAThread; step++) {
    const PreparedRow at = row_at(step);
    o[step] = dout[step] = uint4{};
    if (!at.inside || 8 * lane >= params.o.columns) continue;
    o[step] = load_chunk(params.o, row_of(params.o, at.rows.sequence.batch, at.buffer_row, at.head), lane);
    dout[step] = load_chunk(params.dout, row_of(params.dout, at.rows.sequence.batch, at.buffer_row, at.head), lane);
  }
  const PreparedRow own = row_at(lane % kRowsAThread);
  float given = 0.f, dlse = 0.f;
  if (own.inside && lane < kRowsAThread) {
    const long long from = params.lse_layout.at(own.rows.sequence.batch, own.head, own.buffer_row);
    given = params.lse[from];
    if (params.dlse != nullptr) dlse = params.dlse[from];
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *params.rows.ticket = 0;

  float own_sum = 0.f;
#pragma unroll
  for (int step = 0; step < kRowsAThread; step++) {
    float sum = dot<Element>(o[step], dout[step]);
#pragma unroll
    for (int other = lanes / 2; other > 0; other /= 2) sum += __shfl_xor_sync(~0u, sum, other);
    if (lane == step) own_sum = sum;
  }
  if (own.exists && lane < kRowsAThread)
    store_row<m, n, parts>(params, own, row_of_workspace(own), given, dlse, own_sum);
  if (params.dout_copy == nullptr && !params.rows.zeroed) return;
#pragma unroll
  for (int step = 0; step < kRowsAThread; step++) {
    const PreparedRow at = row_at(step);
    if (at.inside && params.dout_copy != nullptr && 8 * lane < params.o.columns) {
      const long long row =
          (static_cast<long long>(at.rows.sequence.batch) * params.lengths.q.seqlen + at.buffer_row) * heads + at.head;
      static_cast<uint4*>(params.dout_copy)[row * (params.o.columns / 8) + lane] = dout[step];
    }
    if (at.exists && params.rows.zeroed) {
      float4* const zeros =
          reinterpret_cast<float4*>(params.rows.dq) + static_cast<long long>(row_of_workspace(at)) * (d / 4);
      if (lane < d / 8) zeros[lane] = zeros[lane + d / 8] = make_float4(0.f, 0.f, 0.f, 0.f);
    }
  }
}

// The sums of dQ, in the order of accumulators, to rows. One block for 64 rows of a head.
template <class Element, int d, int m, int n, int parts>
__global__ void __launch_bounds__(kRowThreads) backward_finish(const __grid_constant__ BackwardRowParams params) {
  constexpr int part_columns = m * d / (64 * parts), part_chunks = part_columns / 8;
  __shared__ __align__(16) std::uint32_t rows[64][d / 2 + 4];
  ptx::wait_for_kernels_before();
  const int row_blocks = params.rows.query_tiles * (m / 64);
  const int block = gridDim.x - 1 - blockIdx.x;  // what was added to last may still be in the cache
  const int pair = block / row_blocks, first = (block - pair * row_blocks) * 64;
  const int batch = pair / params.rows.heads_q, head = pair - batch * params.rows.heads_q;
  const QueryRows at = query_rows(params.lengths, batch, first / m, m);
  const float4* const sums = reinterpret_cast<const float4*>(params.rows.dq) + static_cast<long long>(block) * 16 * d;
  // No key tile has visited the rows: nobody has written their sums.
  const bool some = params.rows.zeroed || params.rows.turns[block / (m / 64) * parts] >= 0;
#pragma unroll
  for (int k = 0; k < 16 * d / kRowThreads; k++) {
    const int index = k * kRowThreads + threadIdx.x, thread = index % 128, chunk = index / 128;
    const int row = thread / 32 * 16 + thread % 32 / 4;
    const int column = chunk / part_chunks * (part_columns / 2) + chunk % part_chunks * 4 + thread % 4;
    const float4 four = some ? sums[index] : make_float4(0.f, 0.f, 0.f, 0.f);
    rows[row][column] = ptx::pack<Element>(four.x * params.scale, four.y * params.scale);
    rows[row + 8][column] = ptx::pack<Element>(four.z * params.scale, four.w * params.scale);
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < 8 * d / kRowThreads; k++) {
    const int index = k * kRowThreads + threadIdx.x, row = index / (d / 8), chunk = index % (d / 8);
    const int query = at.first + first % m + row;
    if (query >= at.sequence.rows || 8 * chunk >= params.dq.columns) continue;
    auto* const to = static_cast<std::uint16_t*>(params.dq.data) +
                     row_of(params.dq, at.sequence.batch, at.sequence.begin + query, head);
    reinterpret_cast<uint4*>(to)[chunk] = *reinterpret_cast<const uint4*>(&rows[row][4 * chunk]);
  }
}

// dSink = -sum over rows of exp(sink - LSE) * delta. One block for each head, sums in a fixed order.
template <int m>
__global__ void __launch_bounds__(kSinkThreads) backward_sink(const __grid_constant__ BackwardRowParams params) {
  __shared__ double sums[kSinkThreads];
  const int head = blockIdx.x, padded = params.rows.query_tiles * m;
  const float sink = params.sinks[head] * kLog2e - static_cast<float>(params.rows.shift);
  double sum = 0;
  for (int batch = 0; batch < params.batch; batch++) {
    const int row = (batch * params.rows.heads_q + head) * padded;
    for (int query = threadIdx.x; query < padded; query += kSinkThreads)
      sum += ptx::exp2_approx(sink - params.rows.lse[row + query]) * params.rows.delta[row + query];
  }
  sums[threadIdx.x] = sum;
  for (int step = kSinkThreads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step) sums[threadIdx.x] += sums[threadIdx.x + step];
  }
  if (threadIdx.x == 0) params.dsink[head] = static_cast<float>(sums[0]);
}

}  // namespace fattn::gpu::sm90
