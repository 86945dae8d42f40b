// SPDX-License-Identifier: Apache-2.0
// The least that a program needs: Problem -> Plan -> run, on the CPU. Prints which kernel was chosen and why.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "fattn/fattn.hpp"

namespace {

std::vector<float> random_tensor(std::int64_t elements, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> tensor(static_cast<std::size_t>(elements));
  for (float& value : tensor) value = normal(generator);
  return tensor;
}

}  // namespace

int main() try {
  // Two sequences of 300 queries and 1000 keys, 8 query heads that share 2 key heads, the last 256 keys of each query.
  const fattn::Problem problem = {.dtype = fattn::DType::fp32,
                                  .batch = 2,
                                  .heads_q = 8,
                                  .heads_kv = 2,
                                  .seqlen_q = 300,
                                  .seqlen_k = 1000,
                                  .head_dim = 64,
                                  .mask = fattn::causal() & fattn::window(255, 0),
                                  .return_lse = true};
  const fattn::Plan plan = fattn::plan(problem, fattn::cpu());
  std::printf("%s\n", plan.explain().c_str());

  const auto rows_q = problem.batch * problem.seqlen_q * problem.heads_q;
  const auto rows_kv = problem.batch * problem.seqlen_k * problem.heads_kv;
  const std::vector<float> q = random_tensor(rows_q * problem.head_dim, 1);   // [batch, seqlen_q, heads_q, head_dim]
  const std::vector<float> k = random_tensor(rows_kv * problem.head_dim, 2);  // [batch, seqlen_k, heads_kv, head_dim]
  const std::vector<float> v = random_tensor(rows_kv * problem.head_dim, 3);
  std::vector<float> o(q.size());                            // [batch, seqlen_q, heads_q, head_dim]
  std::vector<float> lse(static_cast<std::size_t>(rows_q));  // [batch, heads_q, seqlen_q]

  fattn::HostWorkspace workspace(plan);
  fattn::run(plan, {.q = q.data(), .k = k.data(), .v = v.data(), .o = o.data(), .lse = lse.data()}, workspace);

  std::printf("o[0, 0, 0, :4] = %.4f %.4f %.4f %.4f, lse[0, 0, 0] = %.4f\n", o[0], o[1], o[2], o[3], lse[0]);
  return std::isfinite(o[0]) && std::isfinite(lse[0]) ? 0 : 1;
} catch (const fattn::Error& error) {
  std::fprintf(stderr, "%s: %s\n", fattn::to_string(error.status()), error.what());
  return 1;
}
