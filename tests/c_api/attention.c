/* SPDX-License-Identifier: Apache-2.0 */
/* Exact attention through the C interface, forward and backward, against the formulas written out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fattn/fattn.h"

enum { kHeadsQ = 4, kHeadsKv = 2, kQueries = 5, kKeys = 7, kDim = 16 };

static float q[kQueries][kHeadsQ][kDim], k[kKeys][kHeadsKv][kDim], v[kKeys][kHeadsKv][kDim];
static float o[kQueries][kHeadsQ][kDim], dout[kQueries][kHeadsQ][kDim], lse[kHeadsQ][kQueries];
static float dq[kQueries][kHeadsQ][kDim], dk[kKeys][kHeadsKv][kDim], dv[kKeys][kHeadsKv][kDim];

static int failures = 0;

static void check(fattn_status status, const char* what) {
  if (status == FATTN_OK) return;
  printf("%s: %s: %s\n", what, fattn_status_name(status), fattn_last_error());
  exit(1);
}

static void compare(const char* what, double value, double expected) {
  if (fabs(value - expected) <= 1e-5 * (1 + fabs(expected))) return;
  printf("%s = %.8g, expected %.8g\n", what, value, expected);
  ++failures;
}

static void fill(float* data, size_t count, unsigned seed) {
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    data[i] = (float)((int)(seed >> 16) - 32768) / 20000.0f;
  }
}

/* Probabilities of one row and its log of the sum of exponentials; causal, aligned bottom right. */
static double row_of(int head, int query, double* p) {
  double sum = 0;
  for (int key = 0; key < kKeys; ++key) {
    double score = 0;
    for (int i = 0; i < kDim; ++i) score += (double)q[query][head][i] * k[key][head / 2][i];
    p[key] = key <= query + kKeys - kQueries ? exp(score / 4) : 0;
    sum += p[key];
  }
  for (int key = 0; key < kKeys; ++key) p[key] /= sum;
  return log(sum);
}

static void check_forward(void) {
  for (int head = 0; head < kHeadsQ; ++head) {
    for (int query = 0; query < kQueries; ++query) {
      double p[kKeys];
      compare("lse", (double)lse[head][query], row_of(head, query, p));
      for (int i = 0; i < kDim; ++i) {
        double sum = 0;
        for (int key = 0; key < kKeys; ++key) sum += p[key] * (double)v[key][head / 2][i];
        compare("o", (double)o[query][head][i], sum);
      }
    }
  }
}

static void check_backward(void) {
  static double want_dk[kKeys][kHeadsKv][kDim], want_dv[kKeys][kHeadsKv][kDim];
  memset(want_dk, 0, sizeof want_dk);
  memset(want_dv, 0, sizeof want_dv);
  for (int head = 0; head < kHeadsQ; ++head) {
    for (int query = 0; query < kQueries; ++query) {
      double p[kKeys], dp[kKeys], delta = 0;
      row_of(head, query, p);
      for (int key = 0; key < kKeys; ++key) {
        dp[key] = 0;
        for (int i = 0; i < kDim; ++i) dp[key] += (double)dout[query][head][i] * (double)v[key][head / 2][i];
        delta += p[key] * dp[key];
      }
      for (int i = 0; i < kDim; ++i) {
        double want_dq = 0;
        for (int key = 0; key < kKeys; ++key) {
          const double ds = p[key] * (dp[key] - delta) / 4;
          want_dq += ds * (double)k[key][head / 2][i];
          want_dk[key][head / 2][i] += ds * (double)q[query][head][i];
          want_dv[key][head / 2][i] += p[key] * (double)dout[query][head][i];
        }
        compare("dq", (double)dq[query][head][i], want_dq);
      }
    }
  }
  for (int key = 0; key < kKeys; ++key) {
    for (int head = 0; head < kHeadsKv; ++head) {
      for (int i = 0; i < kDim; ++i) {
        compare("dk", (double)dk[key][head][i], want_dk[key][head][i]);
        compare("dv", (double)dv[key][head][i], want_dv[key][head][i]);
      }
    }
  }
}

/* Plans, runs and returns. Plans for the CPU, workspace zeroed and aligned to 256 bytes. */
static void compute(const fattn_problem* problem, const char* kernel, const fattn_buffers* buffers) {
  fattn_device device;
  fattn_plan* plan = NULL;
  size_t bytes = 0, needed = 0;
  const char* name = NULL;
  check(fattn_device_from_text("cpu:2", &device, sizeof device), "device");
  check(fattn_plan_create(problem, &device, kernel, &plan), "plan");
  check(fattn_plan_kernel(plan, &name), "kernel");
  if (kernel != NULL && strcmp(kernel, name) != 0) printf("asked for %s, got %s\n", kernel, name), ++failures;
  check(fattn_plan_workspace_bytes(plan, &bytes), "workspace");
  const size_t whole = (bytes + 256) / 256 * 256;
  void* const workspace = aligned_alloc(256, whole);
  memset(workspace, 0, whole);
  check(fattn_run(plan, buffers, workspace, bytes, NULL), name);
  check(fattn_plan_explain(plan, NULL, 0, &needed), "explain");
  char* const text = malloc(needed);
  check(fattn_plan_explain(plan, text, needed, NULL), "explain");
  if (strstr(text, name) == NULL) printf("explain does not name %s\n", name), ++failures;
  free(text);
  free(workspace);
  check(fattn_plan_destroy(plan), "destroy");
}

int main(void) {
  const char* const forward[] = {NULL, "reference_forward_fp64", "reference_forward_fp32"};
  const char* const backward[] = {NULL, "reference_backward_fp64", "reference_backward_fp32"};
  fattn_problem problem;
  int major = -1, minor = -1, patch = -1;
  check(fattn_version(&major, &minor, &patch), "version");
  printf("fattn %d.%d.%d\n", major, minor, patch);
  fill(&q[0][0][0], sizeof q / sizeof(float), 1);
  fill(&k[0][0][0], sizeof k / sizeof(float), 2);
  fill(&v[0][0][0], sizeof v / sizeof(float), 3);
  fill(&dout[0][0][0], sizeof dout / sizeof(float), 4);
  const fattn_buffers buffers = {.struct_size = sizeof buffers,
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .o = o,
                                 .lse = &lse[0][0],
                                 .dout = dout,
                                 .dq = dq,
                                 .dk = dk,
                                 .dv = dv};

  for (int i = 0; i < 3; ++i) {
    memset(o, 0xff, sizeof o);
    memset(lse, 0xff, sizeof lse);
    check(fattn_problem_from_text("fwd hq4 hk2 sq5 sk7 d16 fp32 causal lse", &problem, sizeof problem), "problem");
    compute(&problem, forward[i], &buffers);
    check_forward();

    /* The same problem, said by its fields. */
    memset(dq, 0xff, sizeof dq);
    memset(dk, 0xff, sizeof dk);
    memset(dv, 0xff, sizeof dv);
    check(fattn_problem_init(&problem, sizeof problem), "init");
    problem.pass = FATTN_BACKWARD;
    problem.dtype = FATTN_FP32;
    problem.heads_q = kHeadsQ;
    problem.heads_kv = kHeadsKv;
    problem.seqlen_q = kQueries;
    problem.seqlen_k = kKeys;
    problem.head_dim = kDim;
    problem.causal = 1;
    compute(&problem, backward[i], &buffers);
    check_backward();
  }
  printf(failures == 0 ? "all equal\n" : "%d differ\n", failures);
  return failures == 0 ? 0 : 1;
}
