// SPDX-License-Identifier: Apache-2.0
#include "verify/check.hpp"

#include <fmt/format.h>

#include "fattn/error.hpp"
#include "verify/case_line.hpp"
#include "verify/device_memory.hpp"

namespace fattn::verify {

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
  data.place();
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
    output.bound = bound(tensor.name(), problem, tensor.dtype(), output.naive, magnitudes_[i]);
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
