// SPDX-License-Identifier: Apache-2.0
#include "run_pass.hpp"

#include <fmt/format.h>

#include "data.hpp"
#include "fattn/error.hpp"

namespace fattn::tool {

namespace {

constexpr int kSamples = 7;

}  // namespace

const verify::Tensor& PassResult::output(const std::string& name) const {
  for (const verify::Tensor& each : outputs) {
    if (each.name() == name) return each;
  }
  throw Error(Status::internal_error, fmt::format("there is no output {}", name));
}

PassResult run_pass(verify::CaseData& inputs, const Plan& plan, const std::string& kernel, const PassResult* forward,
                    bool checked, Progress& progress) {
  PassResult result{plan, {}, {}, {}};
  if (forward != nullptr) inputs.set_forward(forward->output("o"), forward->output("lse"));
  {
    const DeviceData data(plan, inputs);
    data.run_and_wait();
    for (const std::string& name : data.outputs()) result.outputs.push_back(data.fetch(name));
    if (flops(plan.problem()) > 0) {
      progress.show(fmt::format("{}: timing", result.name()));
      std::vector<std::unique_ptr<Burst>> bursts;
      bursts.push_back(burst(
          plan.device(), [&data](Stream stream) { data.run(stream); }, plan.kernel()));
      result.timing = time_in_turn(bursts, kSamples, 1).front();
    }
  }
  if (checked) {
    progress.show(fmt::format("{}: fp64 oracle", result.name()));
    result.check = verify::check(inputs, kernel, 1);
  }
  return result;
}

}  // namespace fattn::tool
