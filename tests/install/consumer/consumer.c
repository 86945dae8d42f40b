/* SPDX-License-Identifier: Apache-2.0
   The C interface on a problem with a known answer: queries of zeros see every earlier key alike, so the output is the
   running mean of the values. */
#include <fattn/fattn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQLEN = 100, HEAD_DIM = 32 };

static float q[SEQLEN][HEAD_DIM], k[SEQLEN][HEAD_DIM], v[SEQLEN][HEAD_DIM], o[SEQLEN][HEAD_DIM];

static int failed(const char* what) {
  fprintf(stderr, "%s: %s\n", what, fattn_last_error());
  return 1;
}

/* The example of README.md. */
static int readme(void) {
  static float q[1024][8][64], k[1024][2][64], v[1024][2][64], o[1024][8][64];
  v[0][1][5] = 3.0f; /* the first query sees nothing else; head 7 reads key head 1 */
#include "readme_c.inc"
  return o[0][7][5] == 3.0f && o[0][0][5] == 0.0f ? 0 : failed("the example of README.md");
}

int main(void) {
  fattn_plan* plan = NULL;
  fattn_buffers buffers;
  const char* kernel = NULL;
  size_t bytes = 0;
  int major = -1, minor, patch, i, d;
  char *memory, *workspace;
  fattn_status status;

  for (i = 0; i < SEQLEN; ++i) {
    for (d = 0; d < HEAD_DIM; ++d) {
      k[i][d] = (float)((i * 7 + d * 3) % 11) - 5.0f;
      v[i][d] = (float)((i * 5 + d) % 13) - 6.0f;
    }
  }
  if (fattn_plan_from_text("fwd b1 hq1 hk1 sq100 sk100 d32 fp32 causal", "cpu", NULL, &plan) != FATTN_OK)
    return failed("fattn_plan_from_text");
  if (fattn_plan_kernel(plan, &kernel) != FATTN_OK || fattn_plan_workspace_bytes(plan, &bytes) != FATTN_OK)
    return failed("fattn_plan_workspace_bytes");

  memory = calloc(1, bytes + 256);
  if (memory == NULL) return 1;
  workspace = memory + (256 - (uintptr_t)memory % 256) % 256;
  memset(&buffers, 0, sizeof buffers);
  buffers.struct_size = sizeof buffers;
  buffers.q = q;
  buffers.k = k;
  buffers.v = v;
  buffers.o = o;
  if (fattn_run(plan, &buffers, workspace, bytes, NULL) != FATTN_OK) return failed("fattn_run");

  for (d = 0; d < HEAD_DIM; ++d) {
    double sum = 0;
    for (i = 0; i < SEQLEN; ++i) {
      double difference;
      sum += v[i][d];
      difference = o[i][d] - sum / (i + 1);
      if (!(difference < 1e-5 && difference > -1e-5)) {
        fprintf(stderr, "o[%d][%d] = %g, not %g\n", i, d, o[i][d], sum / (i + 1));
        return 1;
      }
    }
  }
  if (fattn_plan_destroy(plan) != FATTN_OK) return failed("fattn_plan_destroy");
  free(memory);
  if (readme() != 0) return 1;

  /* A refusal is a status and a sentence, never an exception or an exit. */
  status = fattn_plan_from_text("fwd b0 hq1 hk1 sq1 sk1 d32 fp32", "cpu", NULL, &plan);
  if (status != FATTN_INVALID_ARGUMENT || plan != NULL || strstr(fattn_last_error(), "batch") == NULL)
    return failed("batch 0 was not refused");
  if (fattn_version(&major, &minor, &patch) != FATTN_OK || major < 0) return failed("fattn_version");
  printf("fattn %d.%d.%d from C, %s\n", major, minor, patch, kernel ? "ran" : "?");
  return 0;
}
