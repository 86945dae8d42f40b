// SPDX-License-Identifier: Apache-2.0
// What the device oracle knows of each row: softmax statistics, delta, and the sums over a head's rows.
#include "cuda/common/reference_tile.cuh"
#include "cuda/launch.hpp"

namespace fattn::gpu {
namespace {

constexpr double kNothing = -HUGE_VAL;

__device__ double exponential(double x) { return exp(x); }

// Reduces what the 16 threads of a row hold, in the order of their columns. Every thread must call; the result is the
// first column's.
template <class Value, class Join>
__device__ void join_columns(Value (&mine)[kPer], Value (&shared)[kTile][16], Join join) {
  for (int i = 0; i < kPer; ++i) shared[thread_row() + 16 * i][thread_column()] = mine[i];
  __syncthreads();
  if (thread_column() == 0) {
#pragma unroll
    for (int i = 0; i < kPer; ++i)
      for (int c = 1; c < 16; ++c) join(mine[i], shared[thread_row() + 16 * i][c]);
  }
  __syncthreads();
}

// A work item of the row kernels: one tile of queries of one head of one sequence.
struct RowItem {
  int head, q_begin;
  Sequence sequence;
};
__device__ RowItem row_item(const ReferenceParams& p, std::int64_t item) {
  const std::int64_t tiles = tiles_of(p.seqlen_q);
  const int q_begin = static_cast<int>(item % tiles) * kTile;
  const int head = static_cast<int>(item / tiles % p.heads_q);
  return {head, q_begin, sequence_of(p, static_cast<int>(item / tiles / p.heads_q))};
}
__host__ __device__ std::int64_t row_items(const ReferenceParams& p) {
  return tiles_of(p.seqlen_q) * p.heads_q * p.batch;
}

__global__ void __launch_bounds__(kThreads) clear_tensor(const __grid_constant__ ReferenceTensor tensor,
                                                         std::int64_t batch, std::int64_t rows, int heads, int dim) {
  const std::int64_t count = batch * rows * heads * dim, step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t n = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; n < count; n += step) {
    const std::int64_t c = n % dim, head = n / dim % heads, row = n / dim / heads % rows, b = n / dim / heads / rows;
    store_element(tensor.dtype, tensor.data,
                  b * tensor.stride.batch + row * tensor.stride.seqlen + head * tensor.stride.head + c, 0.0);
  }
}

__global__ void __launch_bounds__(kThreads) clear_lse(float* lse, std::int64_t count) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t n = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; n < count; n += step)
    lse[n] = static_cast<float>(kNothing);
}

// row_lse, and lse and row_max_logit where they are wanted.
__global__ void __launch_bounds__(kThreads) statistics(const __grid_constant__ ReferenceParams p) {
  __shared__ Staging staging;
  __shared__ SoftmaxState<double> states[kTile][16];
  __shared__ double maxima[kTile][16];
  for (std::int64_t item = blockIdx.x; item < row_items(p); item += gridDim.x) {
    const auto [head, q_begin, s] = row_item(p, item);
    if (q_begin >= s.band.seqlen_q) continue;
    const int q_end = min(q_begin + kTile, s.band.seqlen_q);
    const int head_kv = head / (p.heads_q / p.heads_kv);
    SoftmaxState<double> state[kPer];
    double max_logit[kPer];
    for (int i = 0; i < kPer; ++i) {
      state[i] = SoftmaxState<double>::empty();
      max_logit[i] = kNothing;
    }

    const TileRange tiles = s.band.tiles(q_begin, q_end, kTile);
    for (int tile = tiles.begin; tile < tiles.end; ++tile) {
      double raw[kPer][kPer];
      dot_tile(query_slice(p.q, s, head, p.head_dim), q_begin, key_slice(p.k, s, head_kv, p.head_dim), tile * kTile,
               staging, raw);
#pragma unroll
      for (int i = 0; i < kPer; ++i) {
        const int query = q_begin + thread_row() + 16 * i;
        if (query >= s.band.seqlen_q) continue;
        const Interval visible = s.band.visible(query);
#pragma unroll
        for (int j = 0; j < kPer; ++j) {
          const int key = tile * kTile + thread_column() + 16 * j;
          if (key < visible.begin || key >= visible.end) continue;
          const double score = score_of(p, s, head, query, key, raw[i][j]).score;
          merge(state[i], {score, score == kNothing ? 0.0 : 1.0}, exponential);
          max_logit[i] = larger(max_logit[i], raw[i][j] * p.score.scale);
        }
      }
    }

    join_columns(state, states, [](auto& a, const auto& b) { merge(a, b, exponential); });
    join_columns(max_logit, maxima, [](double& a, double b) { a = larger(a, b); });
    if (thread_column() != 0) continue;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int query = q_begin + thread_row() + 16 * i;
      if (query >= s.band.seqlen_q) continue;
      if (p.sinks != nullptr) merge(state[i], {double{p.sinks[head]}, 1.0}, exponential);
      const std::int64_t row = row_index(p, s, head, query);
      const double lse = state[i].max == kNothing ? kNothing : state[i].max + log(state[i].sum);
      p.row_lse[row] = lse;
      if (p.lse != nullptr) p.lse[row] = static_cast<float>(lse);
      if (p.row_max_logit != nullptr) p.row_max_logit[row] = max_logit[i];
    }
  }
}

// row_delta = rowsum(P dP) - dlse: rowsum(dO o O) of the exact O, not of the rounded one in the buffers.
__global__ void __launch_bounds__(kThreads) delta(const __grid_constant__ ReferenceParams p) {
  __shared__ Staging staging;
  __shared__ double sums[kTile][16];
  for (std::int64_t item = blockIdx.x; item < row_items(p); item += gridDim.x) {
    const auto [head, q_begin, s] = row_item(p, item);
    if (q_begin >= s.band.seqlen_q) continue;
    double sum[kPer] = {};
    const TileRange tiles = s.band.tiles(q_begin, min(q_begin + kTile, s.band.seqlen_q), kTile);
    for (int tile = tiles.begin; tile < tiles.end; ++tile) {
      double terms[kPer][kPer];
      pair_weights<Weight::delta_term>(p, s, head, q_begin, tile * kTile, staging, terms);
      for (int i = 0; i < kPer; ++i)
        for (int j = 0; j < kPer; ++j) sum[i] += terms[i][j];
    }
    join_columns(sum, sums, [](double& a, double b) { a += b; });
    if (thread_column() != 0) continue;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int query = q_begin + thread_row() + 16 * i;
      if (query >= s.band.seqlen_q) continue;
      const std::int64_t row = row_index(p, s, head, query);
      p.row_delta[row] = sum[i] - (p.dlse != nullptr ? double{p.dlse[row]} : 0.0);
    }
  }
}

// One value a head from all its rows, in an order that depends on nothing but the lengths.
template <class Term, class Join>
__device__ double over_rows(const ReferenceParams& p, int head, double start, Term term, Join join) {
  __shared__ double values[kThreads];
  double value = start;
  for (int b = 0; b < p.batch; ++b) {
    const Sequence s = sequence_of(p, b);
    for (int query = static_cast<int>(threadIdx.x); query < s.band.seqlen_q; query += kThreads)
      value = join(value, term(row_index(p, s, head, query)));
  }
  values[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half)
      values[threadIdx.x] = join(values[threadIdx.x], values[threadIdx.x + half]);
    __syncthreads();
  }
  return values[0];
}

__global__ void __launch_bounds__(kThreads) max_logit(const __grid_constant__ ReferenceParams p) {
  const int head = static_cast<int>(blockIdx.x);
  const double value = over_rows(
      p, head, kNothing, [&](std::int64_t row) { return p.row_max_logit[row]; },
      [](double a, double b) { return larger(a, b); });
  if (threadIdx.x == 0) p.max_logit[head] = static_cast<float>(value);
}

__global__ void __launch_bounds__(kThreads) dsink(const __grid_constant__ ReferenceParams p) {
  const int head = static_cast<int>(blockIdx.x);
  const double sink = p.sinks[head];
  const auto term = [&](std::int64_t row) {
    return p.row_lse[row] == kNothing ? 0.0 : -exp(sink - p.row_lse[row]) * p.row_delta[row];
  };
  const double value = over_rows(p, head, 0.0, term, [](double a, double b) { return a + b; });
  if (threadIdx.x == 0) p.dsink[head] = static_cast<float>(value);
}

}  // namespace

void load_reference_rows(const Device& device, bool backward) {
  load_kernel(device, "reference clear_tensor", clear_tensor, 0);
  load_kernel(device, "reference statistics", statistics, 0);
  if (backward) {
    load_kernel(device, "reference delta", delta, 0);
    load_kernel(device, "reference dsink", dsink, 0);
  } else {
    load_kernel(device, "reference clear_lse", clear_lse, 0);
    load_kernel(device, "reference max_logit", max_logit, 0);
  }
}

void reference_clear(const ReferenceParams& p, const ReferenceTensor& tensor, bool queries, int heads, int dim,
                     cudaStream_t stream) {
  const std::int64_t total = queries ? p.total_q : p.total_k;
  const std::int64_t batch = total >= 0 ? 1 : p.batch;
  const std::int64_t rows = total >= 0 ? total : (queries ? p.seqlen_q : p.seqlen_k);
  const std::int64_t items = (batch * rows * heads * dim + kThreads - 1) / kThreads;
  if (items == 0) return;
  launch("reference clear_tensor", clear_tensor, {.grid = grid_for(items), .block = dim3(kThreads)}, stream, tensor,
         batch, rows, heads, dim);
}

void reference_clear_lse(const ReferenceParams& p, cudaStream_t stream) {
  const std::int64_t count = (p.total_q >= 0 ? p.total_q : std::int64_t{p.batch} * p.seqlen_q) * p.heads_q;
  if (count == 0) return;
  launch("reference clear_lse", clear_lse,
         {.grid = grid_for((count + kThreads - 1) / kThreads), .block = dim3(kThreads)}, stream, p.lse, count);
}

void reference_statistics(const ReferenceParams& p, cudaStream_t stream) {
  if (row_items(p) == 0) return;
  launch("reference statistics", statistics, {.grid = grid_for(row_items(p)), .block = dim3(kThreads)}, stream, p);
}

void reference_delta(const ReferenceParams& p, cudaStream_t stream) {
  if (row_items(p) == 0) return;
  launch("reference delta", delta, {.grid = grid_for(row_items(p)), .block = dim3(kThreads)}, stream, p);
}

void reference_max_logit(const ReferenceParams& p, cudaStream_t stream) {
  launch("reference max_logit", max_logit, {.grid = dim3(p.heads_q), .block = dim3(kThreads)}, stream, p);
}

void reference_dsink(const ReferenceParams& p, cudaStream_t stream) {
  launch("reference dsink", dsink, {.grid = dim3(p.heads_q), .block = dim3(kThreads)}, stream, p);
}

}  // namespace fattn::gpu
