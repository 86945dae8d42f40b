// SPDX-License-Identifier: Apache-2.0
#include "time_plans.hpp"

#include <fmt/format.h>

#include "arguments.hpp"
#include "data.hpp"
#include "verify/check.hpp"

namespace fattn::tool {

double prepare_timing(const verify::Case& one, verify::CaseData& inputs) {
  const double work = exact_flops(inputs);
  if (work <= 0) refuse(fmt::format("{}: there is no work to time", verify::to_line(one)));
  if (one.problem.pass == Pass::backward) fill_forward(inputs);
  return work;
}

std::vector<Timing> time_plans(const std::vector<Plan>& plans, verify::CaseData& inputs, int samples,
                               std::uint64_t seed) {
  std::vector<std::unique_ptr<DeviceData>> data;
  std::vector<std::unique_ptr<Burst>> bursts;
  for (const Plan& plan : plans) {
    data.push_back(std::make_unique<DeviceData>(plan, inputs));
    bursts.push_back(burst(
        plan.device(), [on = data.back().get()](Stream stream) { on->run(stream); }, plan.kernel()));
  }
  return time_in_turn(bursts, samples, seed);
}

std::optional<double> peak_tflops(const Device& device, const Timing& timing) {
  if (device.kind == DeviceKind::cpu) return timing.peak_tflops;
  return device.peak_16bit_tflops > 0 ? std::optional(device.peak_16bit_tflops) : std::nullopt;
}

std::vector<std::string> rows_to_time(const Problem& problem, const Device& device) {
  std::vector<std::string> names;
  for (const verify::RowAnswer& row : verify::row_answers(problem, device)) {
    if (row.reason.empty() && !row.by_name_only) names.push_back(row.kernel);
  }
  return names;
}

}  // namespace fattn::tool
