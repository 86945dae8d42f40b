// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "attention_input.hpp"
#include "commands.hpp"

// Options that several subcommands have, worded once.
namespace fattn::tool {

void add_cases(CLI::App& command, std::vector<std::string>& cases);
void add_device(CLI::App& command, std::string& device);
void add_rows(CLI::App& command, std::vector<std::string>& kernels);
void add_timing(CLI::App& command, int& samples, std::uint64_t& seed);
void add_json(CLI::App& command, bool& json, const std::string& what = "Print one JSON object");

// Tensors in files, and more words of the problem that they make.
struct TensorOptions {
  std::vector<std::string> files;
  bool causal = false;
  std::string mask;
  std::string dtype;

  AttentionInput read() const;
  std::string words() const { return (causal ? "causal " : "") + mask; }
};
void add_tensors(CLI::App& command, TensorOptions& tensors);

template <class Options>
void when_chosen(CLI::App& command, Command& chosen, std::shared_ptr<Options> options, int (*run)(const Options&)) {
  command.callback([&chosen, options, run] { chosen = [options, run] { return run(*options); }; });
}

}  // namespace fattn::tool
