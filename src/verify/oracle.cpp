// SPDX-License-Identifier: Apache-2.0
#include "verify/oracle.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fattn/error.hpp"
#include "verify/check.hpp"
#include "verify/random.hpp"
#include "verify/threads.hpp"

namespace fattn::verify {
namespace {

// Below this many operations the naive row may be right by luck, and more draws cost nothing.
constexpr double kSmallFlops = 1e8;
constexpr int kMoreDraws = 4;
// Below this so few numbers decide that the terms' magnitude needs more draws as well.
constexpr double kTinyFlops = 1e6;
// Below this one more run of the oracle costs little.
constexpr double kMediumFlops = 2e9;
// Above this the host takes many seconds.
constexpr double kLargeFlops = 5e10;

bool is_backward(const Problem& problem) { return problem.pass == Pass::backward; }

std::string host_row(const Problem& problem, const char* arithmetic) {
  return fmt::format("reference_{}_{}", is_backward(problem) ? "backward" : "forward", arithmetic);
}

// The problem with results of another dtype in plain layouts; inputs stay where they are.
Problem with_outputs(Problem p, DType out) {
  p.out_dtype = out;
  if (is_backward(p)) {
    p.strides.dq = p.strides.dk = p.strides.dv = std::nullopt;
  } else {
    p.strides.o = std::nullopt;
  }
  return p;
}

CaseOutputs run_on(const Device& device, const Problem& problem, Buffers buffers, const std::string& row,
                   Executor* executor = nullptr) {
  const Plan chosen = plan(problem, device, row);
  CaseOutputs outputs(problem, chosen.device());
  outputs.attach(buffers);
  run_plan(chosen, buffers, 1, executor);
  outputs.fetch();
  return outputs;
}

// On the host, from buffers of the masters. A backward with another out_dtype also takes o in it: the values of the
// problem's o, exactly.
CaseOutputs run_host(const Problem& problem, Buffers buffers, const CaseData& data, const char* arithmetic, DType out) {
  Threads threads;
  Problem p = with_outputs(problem, out);
  p.alignment = 16;
  const std::string row = host_row(p, arithmetic);
  if (!is_backward(p) || out == output_dtype(problem)) {
    return run_on(cpu(threads.concurrency()), p, buffers, row, &threads);
  }
  const Tensor& o = data.tensor("o");
  const Tensor widened = o.converted(out);
  buffers.o = const_cast<std::byte*>(widened.bytes().data());
  const Index4 strides = contiguous(o.extents());
  p.strides.o = Strides{strides[0], strides[1], strides[2], 1};
  return run_on(cpu(threads.concurrency()), p, buffers, row, &threads);
}

// Large problems whose data lie on a GPU. The device's oracle is held to the host's by tests/cuda.
bool runs_on_device(const CaseData& data) {
  const Problem& p = data.problem();
  const bool on_host_only =
      p.mask.documents || p.mask.prefix || p.mask.block_sparse || p.dropout > 0 || p.dtype == DType::e4m3;
  return data.device().kind == DeviceKind::cuda && data.is_placed() && p.alignment >= 8 && !on_host_only &&
         flops(p) > kLargeFlops;
}

CaseOutputs run_device(const CaseData& data, const Problem& problem) {
  Problem p = with_outputs(problem, DType::fp64);
  Buffers buffers = data.placed();
  if (!is_backward(p)) return run_on(data.device(), p, buffers, "cuda_reference_forward");
  const Tensor& o = data.tensor("o");
  const Tensor widened = o.converted(DType::fp64);
  PlacedMemory placed(data.device(), widened.bytes().size(), p.alignment);
  placed.upload(widened.bytes().data());
  buffers.o = placed.data();
  const Index4 strides = contiguous(o.extents());
  p.strides.o = Strides{strides[0], strides[1], strides[2], 1};
  return run_on(data.device(), p, buffers, "cuda_reference_backward");
}

// One key head with its query heads, of one sequence if the batch is dense: enough for a yardstick of a very large
// problem. Inputs keep their strides; arrays by head are used from their beginning. Nothing where that cannot be said.
std::optional<Problem> few_heads(const Problem& problem) {
  Problem p = problem;
  for (const Operand operand : {Operand::q, Operand::k, Operand::v}) {
    (operand == Operand::q   ? p.strides.q
     : operand == Operand::k ? p.strides.k
                             : p.strides.v) = strides(problem, operand);
  }
  if (is_backward(p)) {
    p.strides.dout = strides(problem, Operand::dout);
    p.strides.o = strides(problem, Operand::o);
  }
  p.heads_q = problem.heads_q / problem.heads_kv;
  p.heads_kv = 1;
  if (p.dbias) return std::nullopt;
  if (p.total_q) {
    // What is counted by batch and head would be found elsewhere.
    const bool slices = (p.score.bias && p.score.bias->batch && p.score.bias->heads) || p.dropout > 0 ||
                        (p.mask.block_sparse.per_batch && p.mask.block_sparse.per_head) ||
                        p.descale.kind == DescaleKind::head || p.descale.kind == DescaleKind::block;
    if (slices || p.score.alibi == Alibi::per_batch_and_head) return std::nullopt;
    return p;
  }
  if (p.total_k || p.seqused_q || p.seqused_k || p.return_max_logit || p.dsink) return std::nullopt;
  p.batch = 1;
  return p;
}

// The elements whose indices are all below `extents`.
Tensor corner(const Tensor& full, const Index4& extents) {
  Tensor part(full.name(), full.dtype(), extents);
  const Index4& e = full.extents();
  std::vector<double> row(static_cast<std::size_t>(full.row_elements()));
  std::int64_t to = 0;
  for (std::int64_t a = 0; a < extents[0]; ++a) {
    for (std::int64_t b = 0; b < extents[1]; ++b) {
      for (std::int64_t c = 0; c < extents[2]; ++c) {
        full.get_row((a * e[1] + b) * e[2] + c, row.data());
        part.set_row(to++, row.data());
      }
    }
  }
  return part;
}

const char* naive_arithmetic(const Problem& problem) { return problem.dtype == DType::fp64 ? "fp64" : "naive"; }

CaseData drawn_again(const CaseData& data, int draw) {
  DataOptions options = data.options();
  options.seed = seed_of(options.seed, "draw", draw);
  return CaseData(data.problem(), cpu(1), options);
}

std::vector<Distance> distances(const CaseOutputs& results, const CaseOutputs& exact) {
  std::vector<Distance> all;
  for (std::size_t i = 0; i < results.tensors().size(); ++i) {
    const Tensor &result = results.tensors()[i], &oracle = exact.tensors()[i];
    const bool whole = result.extents() == oracle.extents();
    all.push_back(distance(result, whole ? oracle : corner(oracle, result.extents())));
  }
  return all;
}

}  // namespace

void add_forward(CaseData& data) {
  Problem forward = data.problem();
  forward.pass = Pass::forward;
  forward.return_lse = true;
  forward.dlse = forward.dbias = forward.dsink = false;
  forward.strides.dout = forward.strides.dq = forward.strides.dk = forward.strides.dv = std::nullopt;
  if (data.device().kind == DeviceKind::cuda && flops(data.problem()) > kLargeFlops) data.place();
  const CaseOutputs outputs =
      runs_on_device(data) ? run_device(data, forward) : run_host(forward, data.masters(), data, "fp64", DType::fp64);
  data.set_forward(outputs.tensor("o"), outputs.tensor("lse"));
}

CaseOutputs oracle(const CaseData& data) {
  if (runs_on_device(data)) return run_device(data, data.problem());
  return run_host(data.problem(), data.masters(), data, "fp64", DType::fp64);
}

CaseOutputs naive(const CaseData& data) {
  const Problem& problem = data.problem();
  return run_host(problem, data.masters(), data, naive_arithmetic(problem), output_dtype(problem));
}

std::vector<Distance> yardstick(const CaseData& data, const CaseOutputs& exact) {
  const Problem& problem = data.problem();
  if (flops(problem) > kLargeFlops) {
    if (const std::optional<Problem> few = few_heads(problem)) {
      std::vector<Distance> part =
          distances(run_host(*few, data.masters(), data, naive_arithmetic(problem), output_dtype(problem)), exact);
      // The largest error of few heads is that of their largest value, and all heads have larger ones.
      for (std::size_t i = 0; i < part.size(); ++i) {
        const double whole = distance(exact.tensors()[i], exact.tensors()[i]).reference_max;
        if (part[i].reference_max > 0) part[i].max *= std::max(1.0, whole / part[i].reference_max);
      }
      return part;
    }
  }
  std::vector<Distance> result = distances(naive(data), exact);
  if (flops(problem) > kSmallFlops) return result;
  for (int draw = 1; draw <= kMoreDraws; ++draw) {
    CaseData more = drawn_again(data, draw);
    if (is_backward(problem)) add_forward(more);
    const std::vector<Distance> others = distances(naive(more), oracle(more));
    for (std::size_t i = 0; i < result.size(); ++i) {
      result[i].max = std::max(result[i].max, others[i].max);
      result[i].rms = std::max(result[i].rms, others[i].rms);
    }
  }
  return result;
}

namespace {

void keep_largest(std::vector<Magnitude>& values, const CaseOutputs& outputs) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Distance d = distance(outputs.tensors()[i], outputs.tensors()[i]);
    values[i].rms = std::max(values[i].rms, d.reference_rms);
    values[i].max = std::max(values[i].max, d.reference_max);
  }
}

// The oracle's gradients with delta = 0: a dlse of dout . o takes it away.
CaseOutputs without_delta(const CaseData& data) {
  Tensor delta("dlse", DType::fp32, data.tensor("lse").extents());
  data.for_each_query_row([&](std::int64_t o_row, std::int64_t lse_row) {
    const Tensor &o = data.tensor("o"), &dout = data.tensor("dout");
    std::vector<double> a(static_cast<std::size_t>(o.row_elements())), b(a.size());
    o.get_row(o_row, a.data());
    dout.get_row(o_row, b.data());
    const double sum = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
    delta.set_row(lse_row, &sum);
  });
  Problem problem = data.problem();
  problem.dlse = true;
  Buffers buffers = data.masters();
  buffers.dlse = reinterpret_cast<const float*>(delta.bytes().data());
  return run_host(problem, buffers, data, "fp64", DType::fp64);
}

// What dsink adds up, share_i dout_ic o_ic over queries i and columns c of a head: there is no delta to leave out, it
// is made of nothing else. As many numbers with chance signs: the root of the sum of their squares.
Magnitude sink_terms(const CaseData& data) {
  const std::int64_t heads = data.problem().heads_q;
  const Tensor &o = data.tensor("o"), &dout = data.tensor("dout"), &lse = data.tensor("lse");
  std::vector<double> sinks(static_cast<std::size_t>(heads)), squares(sinks.size());
  data.tensor("sinks").get_row(0, sinks.data());
  std::vector<double> a(static_cast<std::size_t>(o.row_elements())), b(a.size());
  data.for_each_query_row([&](std::int64_t o_row, std::int64_t lse_row) {
    o.get_row(o_row, a.data());
    dout.get_row(o_row, b.data());
    const auto head = static_cast<std::size_t>(o_row % heads);
    double sum = 0;
    lse.get_row(lse_row, &sum);
    const double share = std::exp(sinks[head] - sum);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double square = share * share * a[i] * a[i] * b[i] * b[i];
      if (std::isfinite(square)) squares[head] += square;
    }
  });
  const double sum = std::accumulate(squares.begin(), squares.end(), 0.0);
  return {std::sqrt(sum / static_cast<double>(heads)), std::sqrt(*std::max_element(squares.begin(), squares.end()))};
}

}  // namespace

// For gradients the terms' magnitude is the oracle's results with delta = 0, that is, without the cancellation in
// dS = P (dP - delta). Only where that is cheap: large sums have many terms and the naive's error shows what they cost.
// Where one product of two rows decides, it may be small by luck while its terms are not: the largest of several draws.
std::vector<Magnitude> magnitudes(const CaseData& data, const CaseOutputs& exact) {
  std::vector<Magnitude> result(exact.tensors().size());
  keep_largest(result, exact);
  const Problem& problem = data.problem();
  if (!is_backward(problem) || flops(problem) > kMediumFlops) return result;
  keep_largest(result, without_delta(data));
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (exact.tensors()[i].name() != "dsink") continue;
    const Magnitude terms = sink_terms(data);
    result[i] = {std::max(result[i].rms, terms.rms), std::max(result[i].max, terms.max)};
  }
  for (int draw = 1; flops(problem) <= kTinyFlops && draw <= kMoreDraws; ++draw) {
    CaseData more = drawn_again(data, draw);
    add_forward(more);
    keep_largest(result, without_delta(more));
  }
  return result;
}

}  // namespace fattn::verify
