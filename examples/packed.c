/* SPDX-License-Identifier: Apache-2.0
   Sequences of different lengths, packed one behind the other without padding ("varlen"), from C. Keys are zeros, so
   every query sees its earlier keys alike and the output is the running mean of the values of its own sequence. */
#include <fattn/fattn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 3, LONGEST = 40, TOTAL = 100, HEADS = 2, HEAD_DIM = 16 };

static const int32_t cu_seqlens[BATCH + 1] = {0, 25, 60, TOTAL}; /* where each begins: 25, 35 and 40 rows */
static float q[TOTAL][HEADS][HEAD_DIM], k[TOTAL][HEADS][HEAD_DIM];
static float v[TOTAL][HEADS][HEAD_DIM], o[TOTAL][HEADS][HEAD_DIM];

static int failed(const char* what) {
  fprintf(stderr, "%s: %s\n", what, fattn_last_error());
  return 1;
}

int main(void) {
  fattn_problem problem;
  if (fattn_problem_init(&problem, sizeof problem) != FATTN_OK) return failed("fattn_problem_init");
  problem.pass = FATTN_FORWARD;
  problem.dtype = FATTN_FP32;
  problem.batch = BATCH;
  problem.heads_q = problem.heads_kv = HEADS;
  problem.seqlen_q = problem.seqlen_k = LONGEST;
  problem.total_q = problem.total_k = TOTAL;
  problem.head_dim = HEAD_DIM;
  problem.causal = 1;

  fattn_device device;
  if (fattn_device_from_text("cpu", &device, sizeof device) != FATTN_OK) return failed("fattn_device_from_text");
  fattn_plan* plan = NULL;
  if (fattn_plan_create(&problem, &device, NULL, &plan) != FATTN_OK) return failed("fattn_plan_create");

  size_t bytes = 0;
  if (fattn_plan_workspace_bytes(plan, &bytes) != FATTN_OK) return failed("fattn_plan_workspace_bytes");
  void* workspace = aligned_alloc(256, (bytes + 256) / 256 * 256); /* a size that is a multiple of the alignment */
  if (workspace == NULL) return 1;
  memset(workspace, 0, bytes);

  for (int row = 0; row < TOTAL; ++row)
    for (int head = 0; head < HEADS; ++head)
      for (int d = 0; d < HEAD_DIM; ++d) v[row][head][d] = (float)((row * 5 + head * 3 + d) % 13);
  fattn_buffers buffers = {.struct_size = sizeof buffers,
                           .q = q,
                           .k = k,
                           .v = v,
                           .o = o,
                           .cu_seqlens_q = cu_seqlens,
                           .cu_seqlens_k = cu_seqlens};
  if (fattn_run(plan, &buffers, workspace, bytes, NULL) != FATTN_OK) return failed("fattn_run");

  for (int b = 0; b < BATCH; ++b) {
    float sum = 0;
    for (int row = cu_seqlens[b]; row < cu_seqlens[b + 1]; ++row) {
      sum += v[row][0][0];
      const float mean = sum / (float)(row - cu_seqlens[b] + 1);
      if (!(fabsf(o[row][0][0] - mean) < 1e-4F)) {
        fprintf(stderr, "o[%d] = %g, not %g\n", row, o[row][0][0], mean);
        return 1;
      }
    }
    printf("sequence %d: %d rows, the last is %.4f\n", b, cu_seqlens[b + 1] - cu_seqlens[b],
           o[cu_seqlens[b + 1] - 1][0][0]);
  }
  free(workspace);
  return fattn_plan_destroy(plan) == FATTN_OK ? 0 : failed("fattn_plan_destroy");
}
