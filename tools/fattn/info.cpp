// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "arguments.hpp"
#include "options.hpp"
#include "text.hpp"

namespace fattn::tool {

namespace {

struct InfoOptions {
  bool json = false;
};

std::string kind_text(const KernelInfo& kernel) {
  return fmt::format("{} {}", kernel.device == DeviceKind::cpu ? "cpu" : "cuda", to_string(kernel.pass));
}

int info(const InfoOptions& options) {
  if (options.json) {
    Json json = {{"version", version_text()}, {"commit", commit()}};
    for (const Device& device : devices()) json["devices"].push_back(device_json(device));
    for (const KernelInfo& kernel : kernels()) {
      json["kernels"].push_back({{"name", kernel.name},
                                 {"device", kernel.device == DeviceKind::cpu ? "cpu" : "cuda"},
                                 {"pass", to_string(kernel.pass)},
                                 {"compiled", kernel.compiled},
                                 {"by_name_only", kernel.by_name_only}});
    }
    print(json);
    return kExitOk;
  }
  Facts facts;
  facts.add("fattn", fmt::format("{}, commit {}", version_text(), commit()));
  for (const Device& device : devices()) {
    facts.add(device.kind == DeviceKind::cpu ? "cpu" : fmt::format("cuda:{}", device.index), device_text(device));
  }
  Table compiled({{"", Align::left}, {"", Align::left}, {"", Align::left}});
  Table absent({{"", Align::left}, {"", Align::left}});
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.compiled) {
      compiled.row({kernel.name, kind_text(kernel), kernel.by_name_only ? "oracle, by name only" : ""});
    } else {
      absent.row({kernel.name, kind_text(kernel)});
    }
  }
  print(facts.text());
  print(fmt::format("\n{}\n{}", strong("kernel rows, in the order they are asked"), compiled.text()));
  if (!absent.empty()) print(fmt::format("\n{}\n{}", strong("not compiled in"), absent.text()));
  return kExitOk;
}

}  // namespace

void add_info(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<InfoOptions>();
  CLI::App* command = app.add_subcommand("info", "Version, devices and kernel rows of this build");
  add_json(*command, options->json, "Print JSON");
  command->footer("Examples:\n  fattn info\n  fattn info --json");
  when_chosen(*command, chosen, options, info);
}

}  // namespace fattn::tool
