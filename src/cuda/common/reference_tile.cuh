// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "algebra/rounding.hpp"
#include "algebra/softmax_state.hpp"
#include "cuda/common/reference_params.hpp"

// What every kernel of the device oracle does with one 64 x 64 tile of (query, key) pairs. A block is 16 x 16 threads
// and each holds the pairs {ty + 16 i} x {tx + 16 j}.
namespace fattn::gpu {

inline constexpr int kTile = 64;          // queries or keys
inline constexpr int kThreads = 256;      // 16 x 16
inline constexpr int kPer = 4;            // rows and columns of a tile that one thread holds
inline constexpr int kDepth = 16;         // elements of the contracted dimension staged at a time
inline constexpr int kPitch = kTile + 1;  // odd, so that column accesses hit different banks

__device__ inline int thread_row() { return static_cast<int>(threadIdx.x) / 16; }
__device__ inline int thread_column() { return static_cast<int>(threadIdx.x) % 16; }

__device__ inline double load_element(DType dtype, const void* data, std::int64_t index) {
  switch (dtype) {
    case DType::fp64: return static_cast<const double*>(data)[index];
    case DType::fp32: return static_cast<const float*>(data)[index];
    case DType::bf16: return float_from_bf16(static_cast<const std::uint16_t*>(data)[index]);
    case DType::fp16: return float_from_fp16(static_cast<const std::uint16_t*>(data)[index]);
    case DType::e4m3: return float_from_e4m3(static_cast<const std::uint8_t*>(data)[index]);
  }
  return 0;
}

// Rounded once, to nearest even.
__device__ inline void store_element(DType dtype, void* data, std::int64_t index, double value) {
  switch (dtype) {
    case DType::fp64: static_cast<double*>(data)[index] = value; break;
    case DType::fp32: static_cast<float*>(data)[index] = static_cast<float>(value); break;
    case DType::bf16: static_cast<std::uint16_t*>(data)[index] = bf16_from_float(round_to_odd(value)); break;
    case DType::fp16: static_cast<std::uint16_t*>(data)[index] = fp16_from_float(round_to_odd(value)); break;
    case DType::e4m3: static_cast<std::uint8_t*>(data)[index] = e4m3_from_float(round_to_odd(value)); break;
  }
}

// One sequence of the batch, with lengths clamped to the buffers: nothing on the device is trusted.
struct Sequence {
  int index;
  std::int64_t begin_q, begin_k;  // first row when packed, else 0
  Band band;                      // and the lengths
};

struct Rows {
  std::int64_t begin;
  int length;
};

__device__ inline Rows clamped_rows(const std::int32_t* cu_seqlens, const std::int32_t* seqused, std::int64_t total,
                                    int seqlen, int index) {
  Rows rows{0, seqlen};
  if (cu_seqlens != nullptr) {
    const std::int64_t begin = min(max(std::int64_t{cu_seqlens[index]}, std::int64_t{0}), total);
    const std::int64_t end = min(max(std::int64_t{cu_seqlens[index + 1]}, begin), total);
    rows = {begin, static_cast<int>(min(end - begin, std::int64_t{seqlen}))};
  }
  if (seqused != nullptr) rows.length = min(max(seqused[index], 0), rows.length);
  return rows;
}

__device__ inline Sequence sequence_of(const ReferenceParams& p, int index) {
  const Rows q = clamped_rows(p.cu_seqlens_q, p.seqused_q, p.total_q, p.seqlen_q, index);
  const Rows k = clamped_rows(p.cu_seqlens_k, p.seqused_k, p.total_k, p.seqlen_k, index);
  return {index, q.begin, k.begin, Band::of(p.band, q.length, k.length)};
}

// Where lse, dlse and the workspace keep a row.
__device__ inline std::int64_t row_index(const ReferenceParams& p, const Sequence& s, int head, int query) {
  if (p.total_q >= 0) return head * p.total_q + s.begin_q + query;
  return (std::int64_t{s.index} * p.heads_q + head) * p.seqlen_q + query;
}

// The rows of one sequence and head of a tensor: element (row, c) is data[start + row * row_stride + c * dim_stride].
struct Slice {
  void* data;
  DType dtype;
  std::int64_t start, row_stride, dim_stride;
  int rows, dim;

  __device__ double load(int row, int c) const {
    if (row >= rows || c >= dim) return 0;
    return load_element(dtype, data, start + row * row_stride + c * dim_stride);
  }
  __device__ void store(int row, int c, double value) const {
    if (row < rows && c < dim) store_element(dtype, data, start + row * row_stride + c * dim_stride, value);
  }
};

__device__ inline Slice slice(const ReferenceTensor& t, int index, std::int64_t begin, int head, int rows, int dim) {
  const std::int64_t start = index * t.stride.batch + begin * t.stride.seqlen + head * t.stride.head;
  return {t.data, t.dtype, start, t.stride.seqlen, t.stride.dim, rows, dim};
}
__device__ inline Slice query_slice(const ReferenceTensor& t, const Sequence& s, int head, int dim) {
  return slice(t, s.index, s.begin_q, head, s.band.seqlen_q, dim);
}
__device__ inline Slice key_slice(const ReferenceTensor& t, const Sequence& s, int head_kv, int dim) {
  return slice(t, s.index, s.begin_k, head_kv, s.band.seqlen_k, dim);
}

struct Staging {
  double a[kDepth][kPitch];
  double b[kDepth][kPitch];
};

// out[i][j] = sum over c of a(a_begin + ty + 16 i, c) * b(b_begin + tx + 16 j, c). Ends with a barrier.
__device__ inline void dot_tile(const Slice& a, int a_begin, const Slice& b, int b_begin, Staging& staging,
                                double (&out)[kPer][kPer]) {
  for (auto& row : out)
    for (double& value : row) value = 0;
  const int c = thread_column(), r = thread_row();
  for (int depth = 0; depth < a.dim; depth += kDepth) {
    for (int i = 0; i < kPer; ++i) {
      staging.a[c][r + 16 * i] = a.load(a_begin + r + 16 * i, depth + c);
      staging.b[c][r + 16 * i] = b.load(b_begin + r + 16 * i, depth + c);
    }
    __syncthreads();
#pragma unroll
    for (int x = 0; x < kDepth; ++x) {
      double left[kPer], right[kPer];
      for (int i = 0; i < kPer; ++i) left[i] = staging.a[x][r + 16 * i];
      for (int j = 0; j < kPer; ++j) right[j] = staging.b[x][c + 16 * j];
      for (int i = 0; i < kPer; ++i)
        for (int j = 0; j < kPer; ++j) out[i][j] = fma(left[i], right[j], out[i][j]);
    }
    __syncthreads();
  }
}

// A score after steps 1 to 4 of docs/numerics.md, and what the softcap left of its slope.
struct Scored {
  double score;
  double derivative;  // d score / d (q.k)
};

__device__ inline Scored score_of(const ReferenceParams& p, const Sequence& s, int head, int query, int key,
                                  double raw) {
  double score = p.score.capped(raw, [](double x) { return tanh(x); });
  const double derivative = p.score.derivative(score);
  if (p.bias.data != nullptr) {
    score += load_element(p.bias.dtype, p.bias.data,
                          s.index * p.bias.batch_stride + head * p.bias.head_stride + query * p.bias.query_stride +
                              key * p.bias.key_stride);
  }
  if (p.alibi_slopes != nullptr) {
    const double slope = p.alibi_slopes[s.index * p.alibi_batch_stride + head];
    score += alibi(slope, s.band.diagonal(query), key);
  }
  return {score, derivative};
}

// What a pair contributes.
enum class Weight {
  probability,     // P
  delta_term,      // P dP, whose row sums are rowsum(dO o O)
  score_gradient,  // dS, of the score after all modifiers
  logit_gradient,  // dS times the slope of softcap and scale, of q.k
};

// The weight of a pair that takes no part: a product with it must not be formed, or NaN in masked data would spread.
// Pairs that take part never have it, because adding +0 to -0 gives +0.
inline constexpr double kAbsent = -0.0;
__device__ inline bool present(double weight) { return __double_as_longlong(weight) != __double_as_longlong(kAbsent); }

// The weights of the tile of queries from q_begin and keys from k_begin. Ends with a barrier.
template <Weight kind>
__device__ void pair_weights(const ReferenceParams& p, const Sequence& s, int head, int q_begin, int k_begin,
                             Staging& staging, double (&weights)[kPer][kPer]) {
  const int head_kv = head / (p.heads_q / p.heads_kv);
  double raw[kPer][kPer], dp[kPer][kPer];
  dot_tile(query_slice(p.q, s, head, p.head_dim), q_begin, key_slice(p.k, s, head_kv, p.head_dim), k_begin, staging,
           raw);
  if constexpr (kind != Weight::probability) {
    dot_tile(query_slice(p.dout, s, head, p.head_dim_v), q_begin, key_slice(p.v, s, head_kv, p.head_dim_v), k_begin,
             staging, dp);
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const int query = q_begin + thread_row() + 16 * i;
    const bool row_exists = query < s.band.seqlen_q;
    const std::int64_t row = row_exists ? row_index(p, s, head, query) : 0;
    const double lse = row_exists ? p.row_lse[row] : 0;
    const bool has_keys = row_exists && lse != SoftmaxState<double>::empty().max;
    const Interval visible = s.band.visible(query);
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const int key = k_begin + thread_column() + 16 * j;
      weights[i][j] = kAbsent;
      if (!has_keys || key < visible.begin || key >= visible.end) continue;
      const Scored scored = score_of(p, s, head, query, key, raw[i][j]);
      double weight = exp(scored.score - lse);
      if constexpr (kind == Weight::delta_term) weight *= dp[i][j];
      if constexpr (kind == Weight::score_gradient) weight *= dp[i][j] - p.row_delta[row];
      if constexpr (kind == Weight::logit_gradient) weight *= (dp[i][j] - p.row_delta[row]) * scored.derivative;
      weights[i][j] = weight + 0.0;
    }
  }
}

// Blocks walk work items so that no grid limit bounds a Problem.
inline dim3 grid_for(std::int64_t items) {
  constexpr std::int64_t kMostBlocks = (std::int64_t{1} << 31) - 1;
  return dim3(static_cast<unsigned>(items < kMostBlocks ? items : kMostBlocks));
}
__host__ __device__ inline std::int64_t tiles_of(std::int64_t rows) { return (rows + kTile - 1) / kTile; }

}  // namespace fattn::gpu
