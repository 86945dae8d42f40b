// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "algebra/mask_band.hpp"
#include "algebra/scores.hpp"
#include "fattn/device.hpp"
#include "fattn/tensor.hpp"

// The oracle on the device: what src/reference does, by plain kernels in fp64 and in memory linear in the sequence.
// docs/cuda_reference.md says how it walks and how far from the exact result it can be.
namespace fattn::gpu {

// Strides in elements. Packed tensors have batch stride 0 and a row is counted from the start of the buffer.
struct ReferenceTensor {
  void* data = nullptr;
  DType dtype = DType::fp32;
  Strides stride;
};

struct ReferenceBias {
  const void* data = nullptr;  // [batch or 1, heads_q or 1, seqlen_q or 1, seqlen_k or 1]
  DType dtype = DType::fp32;
  bool batch = false, heads = false, queries = false, keys = false;
  std::int64_t batch_stride = 0, head_stride = 0, query_stride = 0, key_stride = 0;  // 0: broadcast
};

struct ReferenceParams {
  int batch, heads_q, heads_kv;
  int seqlen_q, seqlen_k;  // packed: the longest
  int head_dim, head_dim_v;
  std::int64_t total_q, total_k;     // -1: not packed
  const std::int32_t* cu_seqlens_q;  // [batch + 1]
  const std::int32_t* cu_seqlens_k;  // [batch + 1]
  const std::int32_t* seqused_q;     // [batch]
  const std::int32_t* seqused_k;     // [batch]

  BandLimits band;
  ModifiedScore<double> score;
  ReferenceBias bias;
  const float* alibi_slopes;        // [heads_q] or [batch, heads_q]
  std::int64_t alibi_batch_stride;  // 0: per head
  const float* sinks;               // [heads_q]

  ReferenceTensor q, k, v, o, dout, dq, dk, dv;
  float* lse;         // rows
  float* max_logit;   // [heads_q]
  const float* dlse;  // rows
  float* dbias;       // as bias
  float* dsink;       // [heads_q]

  // Workspace, all indexed like lse: [batch, heads_q, seqlen_q] or [heads_q, total_q].
  double* row_lse;
  double* row_delta;
  double* row_max_logit;
};

// Which product of weights and rows a kernel sums: o = P V, dq = dS K, dk = dS^T Q, dv = P^T dO.
enum class Product { o, dq, dk, dv };

std::size_t reference_shared_bytes();
void load_reference_rows(const Device& device, bool backward);
void load_reference_products(const Device& device, bool backward);

// Each enqueues on the stream; the device is current and the kernels are loaded.
void reference_clear(const ReferenceParams& params, const ReferenceTensor& tensor, bool queries, int heads, int dim,
                     cudaStream_t stream);
void reference_clear_lse(const ReferenceParams& params, cudaStream_t stream);
void reference_statistics(const ReferenceParams& params, cudaStream_t stream);
void reference_max_logit(const ReferenceParams& params, cudaStream_t stream);
void reference_delta(const ReferenceParams& params, cudaStream_t stream);
void reference_dsink(const ReferenceParams& params, cudaStream_t stream);
void reference_product(Product product, const ReferenceParams& params, cudaStream_t stream);
void reference_dbias(const ReferenceParams& params, cudaStream_t stream);

}  // namespace fattn::gpu
