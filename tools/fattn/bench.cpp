// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "arguments.hpp"
#include "fattn/error.hpp"
#include "io/file.hpp"
#include "options.hpp"
#include "text.hpp"
#include "time_plans.hpp"

namespace fattn::tool {

namespace {

struct BenchOptions {
  std::vector<std::string> cases;
  std::string device;
  std::vector<std::string> kernels;
  std::string output;
  int samples = 7;
  std::uint64_t seed = 1;
  bool all = false;
  bool json = false;
  bool table = false;
};

// The rows to time, in turn: those named, which must accept; all that accept; or the one that plan() takes.
std::vector<Plan> plans_of(const BenchOptions& options, const Problem& problem, const Device& device) {
  std::vector<Plan> plans;
  if (!options.kernels.empty()) plans = forced_plans(options.kernels, problem, device);
  if (options.all) {
    for (const std::string& row : rows_to_time(problem, device)) plans.push_back(plan(problem, device, row));
  }
  if (plans.empty()) plans.push_back(plan(problem, device));
  return plans;
}

Json number(std::optional<double> value) { return value ? Json(*value) : Json(); }

// One record of docs/benchmarks.md.
Json record(const std::string& run, const Plan& plan, double work, const Timing& timing) {
  const Device& device = plan.device();
  const bool cpu = device.kind == DeviceKind::cpu;
  const double tflops = work / timing.median_us / 1e6;
  const std::optional<double> peak = peak_tflops(device, timing);
  return {{"run", run},
          {"date", utc_date()},
          {"commit", commit()},
          {"device", cpu ? fmt::format("{}, {} threads", device.name, device.threads) : device.name},
          {"impl", "fattn"},
          {"impl_version", version_text()},
          {"problem", to_string(plan.problem())},
          {"kernel", plan.kernel()},
          {"direction", to_string(plan.problem().pass)},
          {"median_us", timing.median_us},
          {"min_us", timing.min_us},
          {"tflops", tflops},
          {"fraction_of_peak", peak ? Json(tflops / *peak) : Json()},
          {"sm_clock_mhz", number(timing.sm_clock_mhz)},
          {"bytes", plan.traffic().memory_bytes}};
}

int bench(const BenchOptions& options) {
  if (options.samples < 1) refuse(fmt::format("--samples = {}: at least 1; nearest: 1", options.samples));
  const Device device = present_device_argument(options.device);
  const std::vector<verify::Case> cases = case_arguments(options.cases, options.seed);
  const std::string run = utc_stamp();
  std::optional<io::OutputFile> file;
  if (!options.output.empty()) file.emplace(options.output);

  Table table({{"problem", Align::left},
               {"kernel", Align::left},
               {"median", Align::right},
               {"best", Align::right},
               {"rate", Align::right},
               {"of peak", Align::right}});
  Progress progress;
  std::size_t number = 0;
  for (const verify::Case& one : cases) {
    progress.show(fmt::format("{}/{} {}", ++number, cases.size(), to_string(one.problem)));
    const std::vector<Plan> plans = plans_of(options, one.problem, device);
    verify::CaseData inputs(one.problem, device, one.data);
    const double work = prepare_timing(one, inputs);
    const std::vector<Timing> timings = time_plans(plans, inputs, options.samples, options.seed);
    progress.clear();
    for (std::size_t i = 0; i < plans.size(); ++i) {
      const Json line = record(run, plans[i], work, timings[i]);
      if (file) file->write(line.dump() + '\n');
      const double tflops = line["tflops"];
      table.row({i == 0 ? to_string(one.problem) : "", std::string(plans[i].kernel()), time_text(timings[i].median_us),
                 time_text(timings[i].min_us), count_text(tflops * 1e12, "FLOP/s"),
                 line["fraction_of_peak"].is_null() ? "-" : fmt::format("{:.2f}", double{line["fraction_of_peak"]})});
      if (!options.table) print(line, -1);
      std::fflush(stdout);
    }
  }
  if (file) file->commit();
  if (options.table) print(table.text());
  return kExitOk;
}

}  // namespace

void add_bench(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "Time plans on a device; prints one JSON record a line");
  add_cases(*command, options->cases);
  add_device(*command, options->device);
  command->add_option("--kernel", options->kernels, "These rows, in turn")->delimiter(',');
  command->add_flag("--all", options->all, "Every row that accepts, in turn (oracles only by name)");
  add_timing(*command, options->samples, options->seed);
  command->add_option("-o,--output", options->output, "Also write the records to this file, when all are there");
  auto* table = command->add_flag("--table", options->table, "Print a table instead of records");
  command->add_flag("--json", options->json, "Print records (the default)")->excludes(table);
  command->footer(
      "Bursts of about 6 ms after 12 ms of idling, rows of a problem in random order, median of the samples; the\n"
      "fields are those of docs/benchmarks.md. CPU: the peak is what the row's multiply-adds (fp32, or bf16 in pairs\n"
      "or tiles) reach just before and after each sample.\n\n"
      "Examples:\n"
      "  fattn bench \"fwd b1 hq8 hk8 sq1024 sk1024 d64 bf16 causal\" --device cpu --table\n"
      "  fattn bench bench/cases/cpu.txt --device cpu --all -o cpu.jsonl\n"
      "  fattn bench bench/cases/forward_grid.txt --device cuda");
  when_chosen(*command, chosen, options, bench);
}

}  // namespace fattn::tool
