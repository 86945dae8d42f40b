// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <deque>
#include <memory>
#include <optional>

#include "arguments.hpp"
#include "fattn/error.hpp"
#include "options.hpp"
#include "plan_text.hpp"
#include "run_output.hpp"
#include "run_pass.hpp"
#include "text.hpp"
#include "time_plans.hpp"

namespace fattn::tool {

namespace {

struct RunOptions {
  TensorOptions tensors;
  bool forward_only = false;
  bool backward = false;
  std::string device;
  std::string kernel;
  std::string out;
  std::string format;
  std::uint64_t seed = 1;
  bool check = false;
  bool no_check = false;
  bool no_scaling = false;
  bool json = false;
};

// Above this the oracle, which is written to be read and not to be fast, takes minutes.
constexpr double kMostOracleFlops = 3e11;

void print_input(const AttentionInput& input, const std::string& file) {
  Facts facts;
  facts.add("file", file);
  for (const auto& [name, array] : input.tensors) {
    facts.add(name, fmt::format("{} {}", io::safetensors_name(array.element), io::shape_text(array.shape)));
  }
  for (const char* key : {"model", "text", "layer"}) {
    const auto found = input.metadata.find(key);
    if (found == input.metadata.end()) continue;
    const std::string value = io::printable(found->second, 100);
    facts.add(key, value.substr(1, value.size() - 2));
  }
  if (!input.ignored.empty()) {
    const std::size_t shown = std::min<std::size_t>(input.ignored.size(), 4);
    std::string names;
    for (std::size_t i = 0; i < shown; ++i) names += (i > 0 ? ", " : "") + io::printable(input.ignored[i]);
    facts.add("not used", names + (input.ignored.size() > shown ? ", ..." : ""));
  }
  print(facts.text());
}

void print_results(const std::vector<PassResult>& passes) {
  Table speed({{"", Align::left},
               {"median", Align::right},
               {"best", Align::right},
               {"tokens/s", Align::right},
               {"rate", Align::right},
               {"of peak", Align::right}});
  for (const PassResult& pass : passes) {
    const Problem& p = pass.plan.problem();
    if (flops(p) <= 0) continue;  // nothing was timed
    const double tokens = static_cast<double>(p.batch * p.seqlen_q) / pass.timing.median_us;
    const std::optional<double> peak = peak_tflops(pass.plan.device(), pass.timing);
    speed.row({std::string(pass.name()), time_text(pass.timing.median_us), time_text(pass.timing.min_us),
               count_text(tokens * 1e6, ""), count_text(flops(p) / pass.timing.median_us * 1e6, "FLOP/s"),
               peak ? fmt::format("{:.2f}", flops(p) / pass.timing.median_us / 1e6 / *peak) : std::string("-")});
  }
  if (!speed.empty()) print(fmt::format("\n{}\n{}", strong("speed"), speed.text()));

  Table errors({{"output", Align::left},
                {"max error", Align::right},
                {"naive's", Align::right},
                {"rms error", Align::right},
                {"naive's", Align::right},
                {"rms of values", Align::right},
                {"", Align::left}});
  std::string damage;
  for (const PassResult& pass : passes) {
    if (!pass.check) continue;
    for (const verify::OutputCheck& o : pass.check->outputs) {
      errors.row({o.name, error_text(o.error.max), error_text(o.naive.max), error_text(o.error.rms),
                  error_text(o.naive.rms), error_text(o.error.reference_rms), o.pass ? good("ok") : bad("MISS")});
    }
    damage += pass.check->damage;
  }
  if (errors.empty()) {
    print(fmt::format("\n{}: not computed (large problem: --check computes it)\n",
                      strong("error against the fp64 oracle")));
  } else {
    print(fmt::format("\n{}, beside a same-precision naive computation\n{}", strong("error against the fp64 oracle"),
                      errors.text()));
  }
  if (!damage.empty()) print(bad(damage) + "\n");
}

Json result_json(const AttentionInput& input, const std::vector<PassResult>& passes,
                 const std::vector<std::string>& written) {
  Json json;
  for (const auto& [name, array] : input.tensors) {
    json["inputs"][name] = {{"dtype", io::safetensors_name(array.element)}, {"shape", array.shape}};
  }
  for (const PassResult& pass : passes) {
    const Problem& p = pass.plan.problem();
    Json one = plan_json(pass.plan);
    if (flops(p) > 0) {
      const double us = pass.timing.median_us;
      const std::optional<double> peak = peak_tflops(pass.plan.device(), pass.timing);
      one["median_us"] = us;
      one["min_us"] = pass.timing.min_us;
      one["tokens_per_second"] = static_cast<double>(p.batch * p.seqlen_q) / us * 1e6;
      one["gflops"] = flops(p) / us / 1e3;
      one["fraction_of_peak"] = peak ? Json(flops(p) / us / 1e6 / *peak) : Json();
    }
    if (pass.check) {
      for (const verify::OutputCheck& o : pass.check->outputs) {
        one["errors"][o.name] = {{"max", o.error.max},
                                 {"naive_max", o.naive.max},
                                 {"rms", o.error.rms},
                                 {"naive_rms", o.naive.rms},
                                 {"pass", o.pass}};
      }
    }
    json[std::string(pass.name())] = one;
  }
  json["written"] = written;
  return json;
}

// The device that was asked for. Without a word it is the GPU where rows take every pass, else the CPU, and says so.
Device device_for(const RunOptions& options, const std::vector<Problem>& problems) {
  Device device = present_device_argument(options.device);
  if (!options.device.empty() || device.kind == DeviceKind::cpu) return device;
  try {
    for (const Problem& problem : problems) plan(problem, device, options.kernel);
    return device;
  } catch (const Error& error) {
    if (error.status() != Status::unsupported) throw;
    fmt::print(stderr, "fattn: {} has no kernel row for every pass of this problem, so the CPU computes it\n",
               device.name);
    return cpu();
  }
}

int run_files(const RunOptions& options) {
  const AttentionInput input = options.tensors.read();
  const std::string words = options.tensors.words();
  const Problem forward = problem_of(input, Pass::forward, words);
  const Problem backward = problem_of(input, Pass::backward, words);
  const Device device =
      device_for(options, options.forward_only ? std::vector{forward} : std::vector{forward, backward});
  std::optional<RunOutput> output;
  if (!options.out.empty()) output.emplace(options.out, options.format.empty() ? input.npy : options.format == "npy");

  // Everything that can be refused is, before the first line is printed.
  std::vector<Plan> plans = {plan(forward, device, options.kernel)};
  std::deque<verify::CaseData> cases;
  cases.push_back(case_of(input, forward, device, options.seed));
  if (!options.forward_only) {
    plans.push_back(plan(backward, device, options.kernel));
    cases.push_back(case_of(input, backward, device, options.seed));
  }

  Progress progress;
  const double work = flops(forward) + (options.forward_only ? 0 : flops(backward));
  const bool checked = !options.no_check && (options.check || work <= kMostOracleFlops);
  if (!options.json) print_input(input, fmt::format("{}", fmt::join(options.tensors.files, " ")));
  std::vector<PassResult> passes;
  passes.reserve(plans.size());
  for (std::size_t i = 0; i < plans.size(); ++i) {
    if (!options.json) {
      progress.clear();
      print(fmt::format("\n{}\n{}", strong(i == 0 ? "forward" : "backward"), plan_text(plans[i])));
      std::fflush(stdout);
    }
    passes.push_back(
        run_pass(cases[i], plans[i], options.kernel, i == 0 ? nullptr : &passes.front(), checked, progress));
  }
  progress.clear();
  if (!options.json) print_results(passes);

  bool pass = true;
  for (const PassResult& each : passes) pass = pass && each.pass();
  std::vector<std::string> written;
  if (output) {
    output->add_tensors(passes);
    output->add_maps(input, passes.front(), progress);
    if (!options.no_scaling) output->add_scaling(forward, device, progress);
    progress.clear();
    written = output->commit();
  }
  if (options.json) {
    print(result_json(input, passes, written));
  } else if (output) {
    print(fmt::format("\n{}\n{}", strong("written"), output->text()));
  } else {
    print(std::string("\nWith --out DIR, results and pictures are written there.\n"));
  }
  return pass ? kExitOk : kExitMiss;
}

}  // namespace

void add_run(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "Attention of a file's q, k and v, forward and backward");
  add_tensors(*command, options->tensors);
  auto* forward_only = command->add_flag("--forward-only", options->forward_only, "Leave the backward pass out");
  command->add_flag("--backward", options->backward, "Forward and backward (the default)")->excludes(forward_only);
  command->add_option("--device", options->device,
                      "cpu, cpu:THREADS, cuda or cuda:N; default: the GPU where it can, or the CPU");
  command->add_option("--kernel", options->kernel, "Force rows by name, comma separated: one for each pass");
  command->add_option("--seed", options->seed, "Of dout, when the file has none")->capture_default_str();
  auto* check = command->add_flag("--check", options->check, "Compare with the oracle however large the problem is");
  command->add_flag("--no-check", options->no_check, "Never compare with the oracle")->excludes(check);
  auto* out =
      command->add_option("--out", options->out, "Folder for o, lse, dq, dk, dv, attention_maps.png and scaling.jsonl");
  command->add_option("--format", options->format, "Of the tensors written: safetensors or npy; default: as the input")
      ->check(CLI::IsMember({"safetensors", "npy"}))
      ->needs(out);
  command->add_flag("--no-scaling", options->no_scaling, "Do not measure time and memory at growing lengths");
  add_json(*command, options->json);
  command->footer(
      "Other tensors of a .safetensors file are used where the problem has them: dout, dlse, bias, alibi_slopes, "
      "sinks.\n"
      "Exit code 1 when an output is further from the oracle than docs/numerics.md allows.\n\n"
      "Examples:\n"
      "  fattn run data/smollm2_layer10_2048.safetensors --causal --out results\n"
      "  fattn run data/smollm2_layer10_2048.safetensors --mask \"causal window=256,0\" --dtype fp32 --forward-only\n"
      "  fattn run q.npy k.npy v.npy --device cpu:4 --json");
  when_chosen(*command, chosen, options, run_files);
}

}  // namespace fattn::tool
