// SPDX-License-Identifier: Apache-2.0
#include "verify/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "fattn/error.hpp"
#include "verify/case_line.hpp"
#include "verify/device_memory.hpp"
#include "verify/random.hpp"
#include "verify/threads.hpp"

namespace fattn::verify {
namespace {

// Below this many operations the naive row may be right by luck, and more draws cost nothing.
constexpr double kSmallFlops = 1e8;
constexpr int kMoreDraws = 4;
// Below this one more run of the oracle costs little.
constexpr double kMediumFlops = 2e9;

// The problem of a host row that works on the masters: the given layouts for inputs, plain ones for outputs.
Problem on_masters(const Problem& problem, DType out) {
  Problem p = problem;
  p.alignment = 16;
  p.out_dtype = out;
  if (p.pass == Pass::backward) {
    p.strides.dq = p.strides.dk = p.strides.dv = std::nullopt;
  } else {
    p.strides.o = std::nullopt;
  }
  return p;
}

std::string row_name(Pass pass, const char* arithmetic) {
  return fmt::format("reference_{}_{}", pass == Pass::backward ? "backward" : "forward", arithmetic);
}

CaseOutputs run_on_masters(const Problem& problem, const Buffers& masters, const std::string& row) {
  Threads threads;
  const Plan chosen = plan(problem, cpu(threads.concurrency()), row);
  CaseOutputs outputs(problem, chosen.device());
  Buffers buffers = masters;
  outputs.attach(buffers);
  run_plan(chosen, buffers, 1, &threads);
  outputs.fetch();
  return outputs;
}

// The backward of an oracle takes o in its own out_dtype; o holds exact values of the problem's.
CaseOutputs run_host(const Problem& problem, Buffers buffers, const CaseData& data, const char* arithmetic, DType out) {
  Problem p = on_masters(problem, out);
  if (p.pass != Pass::backward || out == output_dtype(problem)) {
    return run_on_masters(p, buffers, row_name(p.pass, arithmetic));
  }
  const Tensor& o = data.tensor("o");
  p.strides.o = std::nullopt;
  Tensor widened("o", out, extents_of(p, Operand::o));
  widened.set_values(o.values());
  buffers.o = widened.bytes().data();
  return run_on_masters(p, buffers, row_name(p.pass, arithmetic));
}

// The magnitude of what each output adds up. For gradients that is the oracle's with delta = 0, that is, without the
// cancellation in dS = P (dP - delta): a dlse of dout . o takes delta away. Only where that is cheap: large sums have
// many terms and the naive's error shows what they cost.
std::vector<Magnitude> magnitudes(const CaseData& data, const CaseOutputs& exact) {
  const auto of = [](const CaseOutputs& outputs) {
    std::vector<Magnitude> values;
    for (const Tensor& tensor : outputs.tensors()) {
      const Distance d = distance(tensor, tensor);
      values.push_back({d.reference_rms, d.reference_max});
    }
    return values;
  };
  std::vector<Magnitude> result = of(exact);
  Problem problem = data.problem();
  if (problem.pass != Pass::backward || flops(problem) > kMediumFlops) return result;
  Tensor delta("dlse", DType::fp32, data.tensor("lse").extents());
  data.for_each_query_row([&](std::int64_t o_row, std::int64_t lse_row) {
    const Tensor &o = data.tensor("o"), &dout = data.tensor("dout");
    std::vector<double> a(static_cast<std::size_t>(o.row_elements())), b(a.size());
    o.get_row(o_row, a.data());
    dout.get_row(o_row, b.data());
    const double sum = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
    delta.set_row(lse_row, &sum);
  });
  problem.dlse = true;
  Buffers buffers = data.masters();
  buffers.dlse = reinterpret_cast<const float*>(delta.bytes().data());
  const std::vector<Magnitude> uncancelled = of(run_host(problem, buffers, data, "fp64", DType::fp64));
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i].rms = std::max(result[i].rms, uncancelled[i].rms);
    result[i].max = std::max(result[i].max, uncancelled[i].max);
  }
  return result;
}

// The naive's distances for these data and, where it is cheap, for more draws: the largest of each.
std::vector<Distance> yardstick(const CaseData& data, const CaseOutputs& exact) {
  std::vector<Distance> result;
  const CaseOutputs first = naive(data);
  for (std::size_t i = 0; i < exact.tensors().size(); ++i) {
    result.push_back(distance(first.tensors()[i], exact.tensors()[i]));
  }
  if (flops(data.problem()) > kSmallFlops) return result;
  for (int draw = 1; draw <= kMoreDraws; ++draw) {
    DataOptions options = data.options();
    options.seed = seed_of(options.seed, "draw", draw);
    CaseData more(data.problem(), cpu(1), options);
    if (data.problem().pass == Pass::backward) add_forward(more);
    const CaseOutputs more_exact = oracle(more), more_naive = naive(more);
    for (std::size_t i = 0; i < result.size(); ++i) {
      const Distance d = distance(more_naive.tensors()[i], more_exact.tensors()[i]);
      result[i].max = std::max(result[i].max, d.max);
      result[i].rms = std::max(result[i].rms, d.rms);
    }
  }
  return result;
}

}  // namespace

CaseOutputs oracle(const CaseData& data) { return run_host(data.problem(), data.masters(), data, "fp64", DType::fp64); }

CaseOutputs naive(const CaseData& data) {
  const Problem& problem = data.problem();
  const char* arithmetic = problem.dtype == DType::fp64 ? "fp64" : "naive";
  return run_host(problem, data.masters(), data, arithmetic, output_dtype(problem));
}

void add_forward(CaseData& data) {
  Problem forward = data.problem();
  forward.pass = Pass::forward;
  forward.return_lse = true;
  forward.dlse = forward.dbias = forward.dsink = false;
  forward.strides.dout = forward.strides.dq = forward.strides.dk = forward.strides.dv = std::nullopt;
  const CaseOutputs outputs =
      run_on_masters(on_masters(forward, DType::fp64), data.masters(), "reference_forward_fp64");
  data.set_forward(outputs.tensor("o"), outputs.tensor("lse"));
}

void run_plan(const Plan& plan, const Buffers& buffers, int runs, Executor* executor,
              const std::function<void(int)>& after_each) {
  const std::size_t bytes = plan.workspace_bytes();
  PlacedMemory workspace(plan.device(), bytes, static_cast<std::int64_t>(Plan::workspace_alignment()));
  workspace.fill(0);
  for (int i = 0; i < runs; ++i) {
    run(plan, buffers, {workspace.data(), bytes}, executor != nullptr ? Stream(executor) : Stream());
    if (plan.device().kind == DeviceKind::cuda) device_memory::synchronize(plan.device().index);
    if (after_each) after_each(i);
  }
  if (!workspace.guards_intact()) {
    throw Error(Status::internal_error, fmt::format("{} wrote outside its workspace", plan.kernel()));
  }
}

namespace {
CaseData& ready(CaseData& data) {
  if (data.problem().pass == Pass::backward) add_forward(data);
  return data;
}
}  // namespace

Judge::Judge(CaseData& data)
    : data_(ready(data)), exact_(oracle(data)), naive_(yardstick(data, exact_)), magnitudes_(magnitudes(data, exact_)) {
  data_.place();
}

CheckResult Judge::check(std::string_view kernel, int runs) {
  const Problem& problem = data_.problem();
  const Plan chosen = plan(problem, data_.device(), kernel);
  CaseOutputs outputs(problem, data_.device());
  Buffers buffers = data_.placed();
  outputs.attach(buffers);
  std::string damage;
  const bool same_bits = problem.deterministic || data_.device().kind == DeviceKind::cpu;
  run_plan(chosen, buffers, runs, nullptr, [&](int run) {
    std::deque<Tensor> before;
    if (run > 0 && same_bits) before = outputs.tensors();
    outputs.fetch();
    for (std::size_t i = 0; i < before.size(); ++i) {
      if (before[i].bytes() == outputs.tensors()[i].bytes()) continue;
      damage += fmt::format("run {} gave other bits of {}; ", run + 1, before[i].name());
    }
  });
  damage += outputs.damage() + data_.damage();

  CheckResult result{problem, data_.options(), std::string(chosen.kernel()), {}, damage, damage.empty()};
  for (std::size_t i = 0; i < outputs.tensors().size(); ++i) {
    const Tensor& tensor = outputs.tensors()[i];
    OutputCheck output{tensor.name(), distance(tensor, exact_.tensors()[i]), naive_[i], {}, false};
    output.bound = bound(tensor.name(), problem.dtype, tensor.dtype(), output.naive, magnitudes_[i]);
    output.pass = passes(output.error, output.bound);
    result.pass = result.pass && output.pass;
    result.outputs.push_back(output);
  }
  return result;
}

CheckResult check(CaseData& data, std::string_view kernel, int runs) {
  plan(data.problem(), data.device(), kernel);  // a row that declines costs no oracle
  return Judge(data).check(kernel, runs);
}

CheckResult check(const Problem& problem, const Device& device, std::string_view kernel, const CheckOptions& options) {
  CaseData data(problem, device, options.data);
  return check(data, kernel, options.runs);
}

std::vector<RowAnswer> row_answers(const Problem& problem, const Device& device) {
  std::vector<RowAnswer> answers;
  for (const KernelInfo& row : kernels()) {
    if (row.device != device.kind || row.pass != problem.pass) continue;
    RowAnswer& answer = answers.emplace_back(RowAnswer{row.name, row.by_name_only, {}});
    try {
      plan(problem, device, row.name);
    } catch (const Error& error) {
      if (error.status() != Status::unsupported) throw;
      answer.reason = error.what();
    }
  }
  return answers;
}

std::vector<std::string> accepting_rows(const Problem& problem, const Device& device) {
  std::vector<std::string> names;
  for (const RowAnswer& answer : row_answers(problem, device)) {
    if (answer.reason.empty()) names.push_back(answer.kernel);
  }
  return names;
}

std::string CheckResult::line() const { return to_line({problem, data}); }

std::string CheckResult::table() const {
  std::string text = fmt::format("{}: {}\n  {}\n", kernel, pass ? "pass" : "MISS", line());
  text += fmt::format("  {:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "output", "max", "bound", "naive",
                      "rms", "bound", "naive", "rms/value");
  for (const OutputCheck& o : outputs) {
    text += fmt::format("  {:<10} {:>10.3e} {:>10.3e} {:>10.3e} {:>10.3e} {:>10.3e} {:>10.3e} {:>10.3e}{}\n", o.name,
                        o.error.max, o.bound.max, o.naive.max, o.error.rms, o.bound.rms, o.naive.rms,
                        o.error.relative_rms(), o.pass ? "" : "  MISS");
    if (o.error.misplaced > 0) {
      text += fmt::format("    {} elements are NaN or infinite on one side only, the first at {}\n", o.error.misplaced,
                          o.error.first_misplaced);
    }
  }
  if (!damage.empty()) text += fmt::format("  {}\n", damage);
  return text;
}

}  // namespace fattn::verify
