/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FATTN_FATTN_H
#define FATTN_FATTN_H

/* The C interface: Problem -> Plan -> run, as in fattn.hpp. See docs/api.md, "C".
 *
 * Every struct begins with struct_size, which the caller sets to sizeof. Fields are only ever added at the end: a
 * smaller struct of an older header is completed with defaults, a larger one of a newer header is accepted while what
 * this library does not know is zero. Flags are 0 or 1. */

/* NOLINTBEGIN(modernize-*): this is C. */
#include <stddef.h>
#include <stdint.h>

#include "fattn/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fattn_status {
  FATTN_OK = 0,
  FATTN_INVALID_ARGUMENT = 1,
  FATTN_UNSUPPORTED = 2,
  FATTN_WORKSPACE_TOO_SMALL = 3,
  FATTN_DEVICE_ERROR = 4,
  FATTN_DEVICE_NOT_PRESENT = 5,
  FATTN_OUT_OF_MEMORY = 6,
  FATTN_IO_ERROR = 7,
  FATTN_INTERNAL_ERROR = 8
} fattn_status;

enum { FATTN_FORWARD = 0, FATTN_BACKWARD = 1, FATTN_DECODE = 2 };                                          /* pass */
enum { FATTN_UNSET = -1, FATTN_FP64 = 0, FATTN_FP32 = 1, FATTN_BF16 = 2, FATTN_FP16 = 3, FATTN_E4M3 = 4 }; /* dtypes */
enum { FATTN_ALIBI_NONE = 0, FATTN_ALIBI_PER_HEAD = 1, FATTN_ALIBI_PER_BATCH_AND_HEAD = 2 };               /* alibi */
enum { FATTN_DESCALE_NONE = 0, FATTN_DESCALE_TENSOR = 1, FATTN_DESCALE_HEAD = 2, FATTN_DESCALE_BLOCK = 3 };
enum { FATTN_CPU = 0, FATTN_CUDA = 1 };                                                                /* kind */
enum { FATTN_Q, FATTN_K, FATTN_V, FATTN_O, FATTN_DOUT, FATTN_DQ, FATTN_DK, FATTN_DV, FATTN_OPERANDS }; /* strides[] */

typedef struct fattn_strides {
  int64_t batch, seqlen, head, dim; /* in elements */
} fattn_strides;

/* problem.hpp says what each field means. fattn_problem_init() fills in the defaults. */
typedef struct fattn_problem {
  size_t struct_size;
  int32_t pass;
  int32_t dtype;
  int32_t out_dtype; /* FATTN_UNSET: as dtype, or bf16 for e4m3 */
  int32_t has_softmax_scale;
  int64_t batch, heads_q, heads_kv, seqlen_q, seqlen_k, head_dim;
  int64_t head_dim_v;       /* 0: head_dim */
  int64_t total_q, total_k; /* -1: not packed */
  int32_t seqused_q, seqused_k;

  int32_t has_strides[FATTN_OPERANDS];
  fattn_strides strides[FATTN_OPERANDS];
  int64_t alignment;

  int32_t causal, causal_top_left;
  int64_t window_left, window_right; /* -1: unbounded */
  int64_t chunk;                     /* 0: none */
  int32_t documents, prefix;
  int64_t sparse_block_q, sparse_block_k; /* 0: not block-sparse */
  int32_t sparse_per_batch, sparse_per_head;

  double softmax_scale;
  double softcap; /* 0: none */
  int32_t has_bias, bias_batch, bias_heads, bias_queries, bias_keys;
  int32_t bias_dtype;
  int32_t alibi;
  int32_t sinks;
  double dropout;
  int32_t descale_kind;
  int32_t return_lse;
  int64_t descale_block_q, descale_block_k;

  int32_t return_max_logit, dlse, dbias, dsink;
  int32_t deterministic, batch_invariant;

  int32_t has_kv_cache;
  int32_t leftpad;
  int64_t page_size, pages, append, rotary_dim;
  int32_t rotary_interleaved;
  int32_t reserved; /* 0 */
} fattn_problem;

typedef struct fattn_device {
  size_t struct_size;
  int32_t kind;
  int32_t index; /* -1: described only */
  char name[64];
  int32_t compute_capability, sm_count;
  int64_t shared_memory_per_block, l2_bytes, memory_bytes;
  int32_t threads;
  int32_t avx2, avx512, amx_bf16;
  double peak_16bit_tflops, memory_gb_per_second;
  int32_t avx512_bf16;
} fattn_device;

/* attention.hpp says the shape of each. Pointers of the plan's memory space; unused ones are null. */
typedef struct fattn_buffers {
  size_t struct_size;
  const void *q, *k, *v;
  void* o;
  float *lse, *max_logit;
  const void* dout;
  const float* dlse;
  void *dq, *dk, *dv;
  float *dbias, *dsink;
  const int32_t *cu_seqlens_q, *cu_seqlens_k, *seqused_q, *seqused_k;
  const void* bias;
  const float *alibi_slopes, *sinks;
  const int32_t *document_q, *document_k, *prefix;
  const int32_t *block_offsets, *block_columns;
  const int64_t* block_bits;
  const uint32_t* block_mask;
  const uint64_t *dropout_seed, *dropout_offset;
  const float *q_descale, *k_descale, *v_descale;
  const int32_t* page_table;
  const void *k_new, *v_new;
  const int32_t* leftpad;
  const void *rotary_cos, *rotary_sin;
} fattn_buffers;

typedef struct fattn_traffic {
  size_t struct_size;
  double bytes, standard_bytes;               /* moved, by this plan and by standard attention */
  double memory_bytes, standard_memory_bytes; /* held */
} fattn_traffic;

typedef struct fattn_plan fattn_plan;

/* The version of the library, which may be newer than this header. */
FATTN_EXPORT fattn_status fattn_version(int* major, int* minor, int* patch);

/* Why the last call of this thread that failed did so; "" before the first. Valid until the next failure. */
FATTN_EXPORT const char* fattn_last_error(void);
FATTN_EXPORT const char* fattn_status_name(fattn_status status);

/* These fill a struct of struct_size bytes and set its struct_size: pass sizeof *problem. */
FATTN_EXPORT fattn_status fattn_problem_init(fattn_problem* problem, size_t struct_size);
FATTN_EXPORT fattn_status fattn_problem_from_text(const char* text, fattn_problem* problem, size_t struct_size);
/* "cpu", "cpu:4", "cuda", "cuda:1", "h100", "h200", "a100" */
FATTN_EXPORT fattn_status fattn_device_from_text(const char* text, fattn_device* device, size_t struct_size);

FATTN_EXPORT fattn_status fattn_problem_validate(const fattn_problem* problem);

/* Texts are copied to the caller: *needed, if not null, gets the bytes with the final zero. A null buffer of capacity 0
 * only asks for them; a capacity that is too small is FATTN_INVALID_ARGUMENT. */
FATTN_EXPORT fattn_status fattn_problem_to_text(const fattn_problem* problem, char* buffer, size_t capacity,
                                                size_t* needed);

/* kernel: null, or row names, comma separated, as FATTN_KERNEL. On failure *plan is null. */
FATTN_EXPORT fattn_status fattn_plan_create(const fattn_problem* problem, const fattn_device* device,
                                            const char* kernel, fattn_plan** plan);
FATTN_EXPORT fattn_status fattn_plan_from_text(const char* problem, const char* device, const char* kernel,
                                               fattn_plan** plan);
FATTN_EXPORT fattn_status fattn_plan_destroy(fattn_plan* plan); /* null is accepted */

FATTN_EXPORT fattn_status fattn_plan_problem(const fattn_plan* plan, fattn_problem* problem, size_t struct_size);
FATTN_EXPORT fattn_status fattn_plan_kernel(const fattn_plan* plan, const char** name); /* lives as long as the plan */
FATTN_EXPORT fattn_status fattn_plan_workspace_bytes(const fattn_plan* plan, size_t* bytes);
FATTN_EXPORT fattn_status fattn_plan_flops(const fattn_plan* plan, double* flops);
FATTN_EXPORT fattn_status fattn_plan_traffic(const fattn_plan* plan, fattn_traffic* traffic, size_t struct_size);
FATTN_EXPORT fattn_status fattn_plan_explain(const fattn_plan* plan, char* buffer, size_t capacity, size_t* needed);

/* stream: a cudaStream_t for a CUDA plan, null for a CPU plan. The workspace begins at a multiple of 256 bytes and was
 * zeroed once. */
FATTN_EXPORT fattn_status fattn_run(const fattn_plan* plan, const fattn_buffers* buffers, void* workspace,
                                    size_t workspace_bytes, void* stream);
/* Threads that a caller lends to CPU plans. parallel_for calls body(work, item, worker) once for every item in
 * [0, items), worker in [0, concurrency), never two calls at a time with the same worker, and returns when all have
 * returned. Results have the same bits whatever it does. */
typedef struct fattn_executor {
  size_t struct_size;
  int32_t concurrency; /* at least 1 */
  void (*parallel_for)(void* context, int64_t items, void (*body)(void* work, int64_t item, int worker), void* work);
  void* context;
} fattn_executor;
/* fattn_run of a CPU plan on the caller's threads. */
FATTN_EXPORT fattn_status fattn_run_on(const fattn_plan* plan, const fattn_buffers* buffers, void* workspace,
                                       size_t workspace_bytes, const fattn_executor* executor);
/* Debug help: checks lengths in device memory; synchronises the stream. */
FATTN_EXPORT fattn_status fattn_validate_device(const fattn_plan* plan, const fattn_buffers* buffers, void* stream);

/* The rows of this library, compiled or not, in the order in which they are asked. */
FATTN_EXPORT fattn_status fattn_kernel_count(size_t* count);
FATTN_EXPORT fattn_status fattn_kernel_name(size_t index, const char** name, int* compiled);

#ifdef __cplusplus
}
#endif
/* NOLINTEND(modernize-*) */

#endif /* FATTN_FATTN_H */
