// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "reference/row.hpp"
#include "reference/score_row.hpp"

// Exact attention as the formulas say it, one query at a time: docs/numerics.md is the text, this is its code.
namespace fattn {
namespace reference {
namespace {

// What one (batch, head) works in: its keys and values as Reals and one row of everything else.
template <class Real>
struct ForwardScratch {
  Real *k, *v;                      // [seqlen_k, head_dim], [seqlen_k, head_dim_v]
  Real *q, *o, *scores, *dropouts;  // [head_dim], [head_dim_v], [seqlen_k], [seqlen_k]
  std::int32_t* keys;               // [seqlen_k]

  ForwardScratch(Arena<Real> arena, const Problem& p, std::int64_t* bytes = nullptr)
      : k(arena.take(p.seqlen_k * p.head_dim)),
        v(arena.take(p.seqlen_k * head_dim_v(p))),
        q(arena.take(p.head_dim)),
        o(arena.take(head_dim_v(p))),
        scores(arena.take(p.seqlen_k)),
        dropouts(arena.take(p.seqlen_k)),
        keys(reinterpret_cast<std::int32_t*>(arena.take(p.seqlen_k))) {
    if (bytes != nullptr) *bytes = arena.bytes();
  }
};

// All queries of one head of one sequence. Returns its largest logit.
template <Arithmetic arithmetic, class Real = RealOf<arithmetic>>
Real forward_head(const ProblemView& view, std::int64_t batch, std::int64_t head, const ForwardScratch<Real>& scratch) {
  const Problem& problem = view.problem;
  const Buffers& buffers = view.buffers;
  const Real nothing = -static_cast<Real>(INFINITY);
  const std::int64_t d = problem.head_dim, dv = head_dim_v(problem);
  const std::int64_t head_kv = head / (problem.heads_q / problem.heads_kv);
  const Sequence sequence{view, batch};
  const Rows &queries = sequence.queries, &keys = sequence.keys;
  const Real sink = problem.sinks ? static_cast<Real>(buffers.sinks[head]) : nothing;

  for (int j = 0; j < keys.length; ++j) {
    sequence.load_row(Operand::k, buffers.k, head_kv, j, d, scratch.k + j * d);
    sequence.load_row(Operand::v, buffers.v, head_kv, j, dv, scratch.v + j * dv);
  }

  Real max_logit = nothing;
  for (std::int64_t i = 0; queries.begin + i < queries.end; ++i) {
    Real lse = nothing;
    std::fill_n(scratch.o, dv, Real(0));
    if (i < queries.length) {
      const int query = static_cast<int>(i);
      sequence.load_row(Operand::q, buffers.q, head, query, d, scratch.q);
      const ScoreRow<Real> row =
          score_row<Real>(sequence, head, query, scratch.q, scratch.k, scratch.keys, scratch.scores, nullptr);
      const SoftmaxState<Real> softmax = softmax_of<Real>(row, scratch.scores, sink);
      if (softmax.max != nothing) {
        Real* weights = scratch.scores;
        for (int n = 0; n < row.count; ++n) weights[n] = std::exp(weights[n] - softmax.max) / softmax.sum;
        if constexpr (arithmetic == Arithmetic::naive) round_weights(problem.dtype, weights, row.count);
        dropout_factors(sequence, head, query, row, scratch.dropouts);
        for (int n = 0; n < row.count; ++n) {
          add_scaled(scratch.o, scratch.dropouts[n] * weights[n], scratch.v + row.keys[n] * dv, dv);
        }
        lse = softmax.max + std::log(softmax.sum);
      }
      max_logit = larger(max_logit, row.max_logit);
    }
    store(output_dtype(problem), buffers.o, view.offset(Operand::o, batch, queries.begin + i, head), dv, scratch.o);
    if (problem.return_lse) {
      buffers.lse[view.lse_offset(batch, queries.begin + i, head)] = static_cast<float>(lse);
    }
  }
  return max_logit;
}

// Workspace: [slots] scratch, then the largest logit of each [batch, heads_q].
template <class Real>
std::int64_t scratch_bytes(const Problem& problem) {
  std::int64_t bytes = 0;
  ForwardScratch<Real>(Arena<Real>(nullptr), problem, &bytes);
  return bytes;
}

template <Arithmetic arithmetic>
Launch prepare(const Problem& problem, const Device& device) {
  using Real = RealOf<arithmetic>;
  const int slots = slot_count(device);
  Launch launch;
  launch.shape = {.tile = "1 query", .grid = problem.batch * problem.heads_q, .threads = slots};
  launch.workspace_bytes = static_cast<std::size_t>(slots * scratch_bytes<Real>(problem)) +
                           static_cast<std::size_t>(problem.batch * problem.heads_q) * sizeof(Real);
  return launch;
}

template <Arithmetic arithmetic>
void run(const Run& r) {
  using Real = RealOf<arithmetic>;
  const ProblemView view{r.problem, r.buffers};
  const int slots = slot_count(r.device);
  const std::int64_t slot_bytes = scratch_bytes<Real>(r.problem), heads = r.problem.heads_q;
  char* const memory = static_cast<char*>(r.workspace.data);
  Real* const max_logits = reinterpret_cast<Real*>(memory + slots * slot_bytes);

  for_each_item(r.stream.executor, slots, r.problem.batch * heads, [&](std::int64_t item, int slot) {
    const ForwardScratch<Real> scratch(Arena<Real>(memory + slot * slot_bytes), r.problem);
    max_logits[item] = forward_head<arithmetic>(view, item / heads, item % heads, scratch);
  });
  for (std::int64_t head = 0; r.problem.return_max_logit && head < heads; ++head) {
    Real top = max_logits[head];
    for (std::int64_t batch = 1; batch < r.problem.batch; ++batch) {
      top = larger(top, max_logits[batch * heads + head]);
    }
    r.buffers.max_logit[head] = static_cast<float>(top);
  }
}

template <Arithmetic arithmetic>
constexpr Kernel forward_row(std::string_view name) {
  return {.name = name,
          .device = DeviceKind::cpu,
          .pass = Pass::forward,
          .by_name_only = true,
          .decline = [](const Problem& problem, const Device&) { return decline(problem, arithmetic); },
          .prepare = prepare<arithmetic>,
          .run = run<arithmetic>};
}

}  // namespace
}  // namespace reference

extern const Kernel fattn_kernel_reference_forward_fp64;
extern const Kernel fattn_kernel_reference_forward_fp32;
extern const Kernel fattn_kernel_reference_forward_naive;
const Kernel fattn_kernel_reference_forward_fp64 =
    reference::forward_row<reference::Arithmetic::fp64>("reference_forward_fp64");
const Kernel fattn_kernel_reference_forward_fp32 =
    reference::forward_row<reference::Arithmetic::fp32>("reference_forward_fp32");
const Kernel fattn_kernel_reference_forward_naive =
    reference::forward_row<reference::Arithmetic::naive>("reference_forward_naive");

}  // namespace fattn
