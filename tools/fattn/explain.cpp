// SPDX-License-Identifier: Apache-2.0
#include "arguments.hpp"
#include "fattn/error.hpp"
#include "options.hpp"
#include "plan_text.hpp"

namespace fattn::tool {

namespace {

struct ExplainOptions {
  std::string problem;
  std::string device;
  std::string kernel;
  bool json = false;
};

int explain(const ExplainOptions& options) {
  const Problem problem = parse_problem(options.problem);
  const Device device = device_argument(options.device);
  if (!options.json) {
    print(plan_text(plan(problem, device, options.kernel)));
    return kExitOk;
  }
  try {
    print(plan_json(plan(problem, device, options.kernel)));
  } catch (const Error& error) {
    if (error.status() != Status::unsupported) throw;
    print(
        Json{{"problem", to_string(problem)}, {"device", device.name}, {"kernel", nullptr}, {"reason", error.what()}});
    throw;
  }
  return kExitOk;
}

}  // namespace

void add_explain(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<ExplainOptions>();
  CLI::App* command = app.add_subcommand("explain", "Which kernel serves a problem, why, and at what cost");
  command->add_option("problem", options->problem, "The problem in words (docs/api.md)")->required();
  command->add_option("--device", options->device,
                      "cpu, cpu:THREADS, cuda, cuda:N, h100, h200 or a100; default: the GPU, or the CPU");
  command->add_option("--kernel", options->kernel, "Force a row by name");
  add_json(*command, options->json, "Print JSON");
  command->footer(
      "Examples:\n"
      "  fattn explain \"fwd b4 hq32 hk8 sq4096 sk4096 d128 bf16 causal\" --device h100\n"
      "  fattn explain \"bwd b1 hq8 hk8 sq2048 sk2048 d64 fp32 causal window=512,0\" --device cpu\n"
      "  fattn explain \"fwd b1 hq8 hk8 sq1024 sk1024 d64 bf16\" --kernel reference_forward_fp64 --json");
  when_chosen(*command, chosen, options, explain);
}

}  // namespace fattn::tool
