// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "reference/row.hpp"
#include "reference/score_row.hpp"

// The gradients as docs/numerics.md writes them, one query at a time.
namespace fattn {
namespace reference {
namespace {

// What one (batch, key head) works in.
template <class Real>
struct BackwardScratch {
  Real *k, *v, *dk, *dv;     // [seqlen_k, head_dim], for v and dv [seqlen_k, head_dim_v]
  Real *q, *dq, *o, *dout;   // [head_dim], [head_dim], [head_dim_v], [head_dim_v]
  Real *p, *ds, *cap_slope;  // [seqlen_k]
  Real* dropouts;            // [seqlen_k]
  std::int32_t* keys;        // [seqlen_k]

  BackwardScratch(Arena<Real> arena, const Problem& problem, std::int64_t* bytes = nullptr)
      : k(arena.take(problem.seqlen_k * problem.head_dim)),
        v(arena.take(problem.seqlen_k * head_dim_v(problem))),
        dk(arena.take(problem.seqlen_k * problem.head_dim)),
        dv(arena.take(problem.seqlen_k * head_dim_v(problem))),
        q(arena.take(problem.head_dim)),
        dq(arena.take(problem.head_dim)),
        o(arena.take(head_dim_v(problem))),
        dout(arena.take(head_dim_v(problem))),
        p(arena.take(problem.seqlen_k)),
        ds(arena.take(problem.seqlen_k)),
        cap_slope(arena.take(problem.seqlen_k)),
        dropouts(arena.take(problem.seqlen_k)),
        keys(reinterpret_cast<std::int32_t*>(arena.take(problem.seqlen_k))) {
    if (bytes != nullptr) *bytes = arena.bytes();
  }
};

// Gradients that several heads or sequences share, summed here before they are rounded.
template <class Real>
struct SharedGradients {
  Real* dbias;    // as bias
  double* dsink;  // [batch, heads_q]; in double, because it is one number of as many terms as there are queries
};

// One query: its dq, and its part of dk, dv, dbias and dsink. q, dout and the keys are in the scratch.
template <Arithmetic arithmetic, class Real = RealOf<arithmetic>>
void backward_query(const Sequence& sequence, std::int64_t head, int query, const BackwardScratch<Real>& s,
                    const SharedGradients<Real>& shared) {
  const ProblemView& view = sequence.view;
  const Problem& problem = view.problem;
  const Buffers& buffers = view.buffers;
  const Real nothing = -static_cast<Real>(INFINITY), scale = static_cast<Real>(softmax_scale(problem));
  const Real sink = problem.sinks ? static_cast<Real>(buffers.sinks[head]) : nothing;
  const std::int64_t d = problem.head_dim, dv = head_dim_v(problem), batch = sequence.batch,
                     lse_offset = view.lse_offset(batch, sequence.queries.begin + query, head);

  const ScoreRow<Real> row = score_row<Real>(sequence, head, query, s.q, s.k, s.keys, s.p, s.cap_slope);
  const int count = row.count;
  // The oracle believes neither the lse (fp32) nor the o (rounded) that it is given, but computes its own; the naive
  // row has what every other row has: exp(lse) is the whole sum.
  SoftmaxState<Real> softmax = {static_cast<Real>(buffers.lse[lse_offset]), Real(1)};
  // Summed in double: adding equal weights errs the same way each time, and all gradients of the row by that factor,
  // of which nothing cancels in dsink.
  if constexpr (arithmetic != Arithmetic::naive) softmax = softmax_of<double>(row, s.p, sink);
  if (softmax.max == nothing) return;

  dropout_factors(sequence, head, query, row, s.dropouts);
  Real delta = 0;
  for (int n = 0; n < count; ++n) {
    s.p[n] = std::exp(s.p[n] - softmax.max) / softmax.sum;
    s.ds[n] = s.dropouts[n] * dot(s.dout, s.v + row.keys[n] * dv, dv);  // dP
    delta += s.p[n] * s.ds[n];
  }
  if constexpr (arithmetic == Arithmetic::naive) delta = dot(s.dout, s.o, dv);
  if (problem.dlse) delta -= static_cast<Real>(buffers.dlse[lse_offset]);
  if (problem.dsink) {
    const Real share = std::exp(sink - softmax.max) / softmax.sum;
    shared.dsink[batch * problem.heads_q + head] -= static_cast<double>(share * delta);
  }

  for (int n = 0; n < count; ++n) s.ds[n] = s.p[n] * (s.ds[n] - delta);
  if (problem.dbias) {
    const bool keys = problem.score.bias->keys;
    Real* const dbias = shared.dbias + view.bias_offset(batch, head, query);
    for (int n = 0; n < count; ++n) dbias[keys ? row.keys[n] : 0] += s.ds[n];
  }
  for (int n = 0; n < count; ++n) s.ds[n] *= s.cap_slope[n];
  if constexpr (arithmetic == Arithmetic::naive) {
    round_gradients(problem.dtype, s.p, count);
    round_gradients(problem.dtype, s.ds, count);
  }
  for (int n = 0; n < count; ++n) {
    const std::int64_t key = row.keys[n];
    add_scaled(s.dq, scale * s.ds[n], s.k + key * d, d);
    add_scaled(s.dk + key * d, scale * s.ds[n], s.q, d);
    add_scaled(s.dv + key * dv, s.dropouts[n] * s.p[n], s.dout, dv);
  }
}

// One key head of one sequence with all query heads that share it.
template <Arithmetic arithmetic, class Real = RealOf<arithmetic>>
void backward_head(const ProblemView& view, std::int64_t batch, std::int64_t head_kv, const BackwardScratch<Real>& s,
                   const SharedGradients<Real>& shared) {
  const Problem& problem = view.problem;
  const Buffers& buffers = view.buffers;
  const DType out = output_dtype(problem);
  const std::int64_t d = problem.head_dim, dv = head_dim_v(problem), group = problem.heads_q / problem.heads_kv;
  const Sequence sequence{view, batch};
  const Rows &queries = sequence.queries, &keys = sequence.keys;

  for (int j = 0; j < keys.length; ++j) {
    sequence.load_row(Operand::k, buffers.k, head_kv, j, d, s.k + j * d);
    sequence.load_row(Operand::v, buffers.v, head_kv, j, dv, s.v + j * dv);
  }
  std::fill_n(s.dk, keys.length * d, Real(0));
  std::fill_n(s.dv, keys.length * dv, Real(0));

  for (std::int64_t head = head_kv * group; head < (head_kv + 1) * group; ++head) {
    for (std::int64_t i = 0; queries.begin + i < queries.end; ++i) {
      const std::int64_t row = queries.begin + i;
      std::fill_n(s.dq, d, Real(0));
      if (i < queries.length) {
        const int query = static_cast<int>(i);
        sequence.load_row(Operand::q, buffers.q, head, query, d, s.q);
        sequence.load_row(Operand::o, buffers.o, head, query, dv, s.o);
        sequence.load_row(Operand::dout, buffers.dout, head, query, dv, s.dout);
        backward_query<arithmetic>(sequence, head, query, s, shared);
      }
      store(out, buffers.dq, view.offset(Operand::dq, batch, row, head), d, s.dq);
    }
  }

  std::fill_n(s.q, d, Real(0));
  std::fill_n(s.o, dv, Real(0));
  for (std::int64_t j = 0; keys.begin + j < keys.end; ++j) {
    const bool used = j < keys.length;
    store(out, buffers.dk, view.offset(Operand::dk, batch, keys.begin + j, head_kv), d, used ? s.dk + j * d : s.q);
    store(out, buffers.dv, view.offset(Operand::dv, batch, keys.begin + j, head_kv), dv, used ? s.dv + j * dv : s.o);
  }
}

template <class Real>
std::int64_t scratch_bytes(const Problem& problem) {
  std::int64_t bytes = 0;
  BackwardScratch<Real>(Arena<Real>(nullptr), problem, &bytes);
  return bytes;
}

// dBias sums over sequences and heads: one slot then, so that the order of the sum is fixed.
int slots_for(const Problem& problem, const Device& device) { return problem.dbias ? 1 : slot_count(device); }

// Workspace: [slots] scratch, then dsink and dbias.
template <Arithmetic arithmetic>
Launch prepare(const Problem& problem, const Device& device) {
  using Real = RealOf<arithmetic>;
  const Buffers none;
  const int slots = slots_for(problem, device);
  const std::int64_t dbias = problem.dbias ? ProblemView{problem, none}.bias_elements() : 0;
  Launch launch;
  launch.shape = {.tile = "1 query", .grid = problem.batch * problem.heads_kv, .threads = slots};
  launch.workspace_bytes = static_cast<std::size_t>(slots * scratch_bytes<Real>(problem)) +
                           static_cast<std::size_t>(problem.batch * problem.heads_q) * sizeof(double) +
                           static_cast<std::size_t>(dbias) * sizeof(Real);
  return launch;
}

template <Arithmetic arithmetic>
void run(const Run& r) {
  using Real = RealOf<arithmetic>;
  const Problem& problem = r.problem;
  const ProblemView view{problem, r.buffers};
  const int slots = slots_for(problem, r.device);
  const std::int64_t slot_bytes = scratch_bytes<Real>(problem), heads_q = problem.heads_q, heads_kv = problem.heads_kv;
  const std::int64_t bias_elements = problem.dbias ? view.bias_elements() : 0;
  char* const memory = static_cast<char*>(r.workspace.data);
  double* const dsink = reinterpret_cast<double*>(memory + slots * slot_bytes);
  Real* const dbias = reinterpret_cast<Real*>(dsink + problem.batch * heads_q);
  const SharedGradients<Real> shared{dbias, dsink};
  std::fill_n(dsink, problem.batch * heads_q, 0.0);
  std::fill_n(dbias, bias_elements, Real(0));

  for_each_item(r.stream.executor, slots, problem.batch * heads_kv, [&](std::int64_t item, int slot) {
    const BackwardScratch<Real> scratch(Arena<Real>(memory + slot * slot_bytes), problem);
    backward_head<arithmetic>(view, item / heads_kv, item % heads_kv, scratch, shared);
  });
  for (std::int64_t i = 0; i < bias_elements; ++i) r.buffers.dbias[i] = static_cast<float>(dbias[i]);
  for (std::int64_t head = 0; problem.dsink && head < heads_q; ++head) {
    double sum = 0;
    for (std::int64_t batch = 0; batch < problem.batch; ++batch) sum += shared.dsink[batch * heads_q + head];
    r.buffers.dsink[head] = static_cast<float>(sum);
  }
}

template <Arithmetic arithmetic>
constexpr Kernel backward_row(std::string_view name) {
  return {.name = name,
          .device = DeviceKind::cpu,
          .pass = Pass::backward,
          .by_name_only = true,
          .decline = [](const Problem& problem, const Device&) { return decline(problem, arithmetic); },
          .prepare = prepare<arithmetic>,
          .run = run<arithmetic>};
}

}  // namespace
}  // namespace reference

extern const Kernel fattn_kernel_reference_backward_fp64;
extern const Kernel fattn_kernel_reference_backward_fp32;
extern const Kernel fattn_kernel_reference_backward_naive;
const Kernel fattn_kernel_reference_backward_fp64 =
    reference::backward_row<reference::Arithmetic::fp64>("reference_backward_fp64");
const Kernel fattn_kernel_reference_backward_fp32 =
    reference::backward_row<reference::Arithmetic::fp32>("reference_backward_fp32");
const Kernel fattn_kernel_reference_backward_naive =
    reference::backward_row<reference::Arithmetic::naive>("reference_backward_naive");

}  // namespace fattn
