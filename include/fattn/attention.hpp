// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "fattn/export.h"
#include "fattn/plan.hpp"

struct CUstream_st;  // cudaStream_t without the CUDA headers

namespace fattn {

// Threads that a caller lends to CPU kernels. Results have the same bits whatever the executor and its concurrency.
class FATTN_EXPORT Executor {
 public:
  virtual ~Executor();
  virtual int concurrency() const = 0;
  // Calls body(context, item, worker) once for every item in [0, items); worker in [0, concurrency()), never two calls
  // at a time with the same worker. Returns when all calls have returned. body does not throw.
  virtual void parallel_for(std::int64_t items, void (*body)(void* context, std::int64_t item, int worker),
                            void* context) = 0;
};

// Where the work goes: a CUDA stream for CUDA plans (nullptr is the legacy default stream), an executor for CPU plans
// (nullptr: the library's own threads).
struct Stream {
  CUstream_st* cuda = nullptr;
  Executor* executor = nullptr;
  Stream() = default;
  Stream(CUstream_st* stream) : cuda(stream) {}
  Stream(Executor* threads) : executor(threads) {}
  Stream(std::nullptr_t) {}
};

// Scratch memory of the plan's memory space: Plan::workspace_bytes() at a multiple of Plan::workspace_alignment(),
// zero-filled once by the caller. Every run leaves its counters zero.
struct Workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// The data of one run. All pointers are in the memory space of the plan's device. Shapes in terms of the Problem;
// B = batch, H = heads, S = seqlen, D = head_dim, T = total. q, k, v, dout are of Problem::dtype, o, dq, dk, dv of
// output_dtype(problem). Unused ones stay null. Inputs are never written.
struct Buffers {
  const void* q = nullptr;     // [B, Sq, Hq, D] or [Tq, Hq, D]
  const void* k = nullptr;     // [B, Sk, Hkv, D] or [Tk, Hkv, D]
  const void* v = nullptr;     // [B, Sk, Hkv, Dv] or [Tk, Hkv, Dv]
  void* o = nullptr;           // [B, Sq, Hq, Dv] or [Tq, Hq, Dv]; written by forward, read by backward
  float* lse = nullptr;        // [B, Hq, Sq] or [Hq, Tq]; written by forward, read by backward
  float* max_logit = nullptr;  // [Hq]; written by forward

  const void* dout = nullptr;   // as o
  const float* dlse = nullptr;  // as lse
  void* dq = nullptr;           // as q
  void* dk = nullptr;           // as k
  void* dv = nullptr;           // as v
  float* dbias = nullptr;       // as bias, fp32
  float* dsink = nullptr;       // [Hq]

  const std::int32_t* cu_seqlens_q = nullptr;  // [B + 1], non-decreasing from 0
  const std::int32_t* cu_seqlens_k = nullptr;  // [B + 1]
  const std::int32_t* seqused_q = nullptr;     // [B]
  const std::int32_t* seqused_k = nullptr;     // [B]

  const void* bias = nullptr;           // [B or 1, Hq or 1, Sq or 1, Sk or 1] of Bias::dtype; see Bias
  const float* alibi_slopes = nullptr;  // [Hq] or [B, Hq]
  const float* sinks = nullptr;         // [Hq]

  const std::int32_t* document_q = nullptr;  // [B, Sq] or [Tq]
  const std::int32_t* document_k = nullptr;  // [B, Sk] or [Tk]
  const std::int32_t* prefix = nullptr;      // [B]
  // Block-sparse, by rows of blocks (CSR), N tables of R rows: docs/numerics.md, "Block-sparse".
  const std::int32_t* block_offsets = nullptr;  // [N, R + 1]
  const std::int32_t* block_columns = nullptr;  // [entries]
  const std::int64_t* block_bits = nullptr;     // [entries]: -1 full, else first bit of the block in block_mask
  const std::uint32_t* block_mask = nullptr;    // bits of the partial blocks; null: there are none

  const std::uint64_t* dropout_seed = nullptr;    // [1]
  const std::uint64_t* dropout_offset = nullptr;  // [1]
  // [1], [B, heads] or [B, heads, blocks]: docs/numerics.md, "e4m3 inputs".
  const float* q_descale = nullptr;
  const float* k_descale = nullptr;
  const float* v_descale = nullptr;

  const std::int32_t* page_table = nullptr;  // [B, pages per sequence]
  const void* k_new = nullptr;               // [B, append, Hkv, D]
  const void* v_new = nullptr;               // [B, append, Hkv, Dv]
  const std::int32_t* leftpad = nullptr;     // [B]
  const void* rotary_cos = nullptr;          // [positions, rotary_dim / 2], dtype of q
  const void* rotary_sin = nullptr;          // as rotary_cos
};

// Enqueues (CUDA) or computes (CPU) the plan. Allocates nothing, prints nothing, does not synchronise a stream, and
// leaves the current CUDA device as it was. Throws Error for missing, misaligned or misplaced buffers and for a small
// workspace before anything is written. Errors of the device that appear later are reported by the next CUDA call of
// the caller (docs/api.md, "Asynchronous errors").
FATTN_EXPORT void run(const Plan& plan, const Buffers& buffers, Workspace workspace, Stream stream = {});

// Debug help: copies the device-side lengths (cu_seqlens, seqused) to the host, synchronising the stream, and throws
// Error(invalid_argument) naming the first that is negative, decreasing or beyond its tensor.
FATTN_EXPORT void validate_device(const Plan& plan, const Buffers& buffers, Stream stream = {});

struct Version {
  int major, minor, patch;
};
FATTN_EXPORT Version version();  // of the library that is linked

}  // namespace fattn
