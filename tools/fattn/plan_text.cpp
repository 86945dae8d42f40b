// SPDX-License-Identifier: Apache-2.0
#include "plan_text.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "arguments.hpp"
#include "text.hpp"

namespace fattn::tool {

std::string plan_text(const Plan& plan) {
  const Traffic traffic = plan.traffic();
  const double work = flops(plan.problem());
  const Device& device = plan.device();
  Facts facts;
  facts.add("problem", to_string(plan.problem()));
  facts.add("device", device_text(device));
  facts.add("kernel", strong(plan.kernel()));
  facts.add("launch", launch_text(plan));
  facts.add("workspace", bytes_text(static_cast<double>(plan.workspace_bytes())));
  std::string floor;
  if (device.peak_16bit_tflops > 0 && size_of(plan.problem().dtype) == 2) {
    floor = fmt::format(", {} at the peak of the device", time_text(work / device.peak_16bit_tflops / 1e6));
  }
  facts.add("work", count_text(work, "FLOP") + floor);

  Table table(
      {{"", Align::left}, {"this kernel", Align::right}, {"standard attention", Align::right}, {"", Align::right}});
  const auto compare = [&](const char* name, double ours, double standard) {
    const bool less = ours <= standard;
    const double ratio = less ? standard / std::max(ours, 1.0) : ours / std::max(standard, 1.0);
    table.row({name, bytes_text(ours), bytes_text(standard),
               fmt::format("{} {}", ratio_text(ratio), less ? "less" : "more")});
  };
  compare("memory", traffic.memory_bytes, traffic.standard_memory_bytes);
  compare("traffic to slow memory", traffic.bytes, traffic.standard_bytes);
  std::string text = facts.text() + '\n' + table.text();

  if (!plan.refusals().empty()) {
    Table refusals({{"", Align::left}, {"", Align::left}});
    for (const Refusal& each : grouped(plan.refusals())) refusals.row({each.kernel, each.reason});
    text += fmt::format("\nrows that declined\n{}", refusals.text());
  }
  return text;
}

}  // namespace fattn::tool
