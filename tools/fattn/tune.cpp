// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "arguments.hpp"
#include "core/registry.hpp"
#include "core/tiles.hpp"
#include "fattn/choices.hpp"
#include "fattn/error.hpp"
#include "io/file.hpp"
#include "options.hpp"
#include "text.hpp"
#include "time_plans.hpp"

namespace fattn::tool {

namespace {

// What wins by less than this may win by chance: the row and tile that plan() takes by itself stays.
constexpr double kMargin = 0.98;

struct TuneOptions {
  std::vector<std::string> cases;
  std::string device;
  std::vector<std::string> kernels;
  std::string write;
  int samples = 5;
  std::uint64_t seed = 1;
  bool json = false;
};

struct Candidate {
  Plan plan;
  std::string name;  // "row" or "row@tile", as plan() takes it
  std::string tile;  // empty: the row has one tile only
  Timing timing;
};

std::vector<std::string> tiles_of(const std::string& name, const Problem& problem, const Device& device) {
  for (const Row& row : rows()) {
    if (row.name == name && row.kernel != nullptr) return fattn::tiles_of(*row.kernel, problem, device);
  }
  return {};
}

// Every tile of every row that accepts; the first is what plan() takes without a word.
std::vector<Candidate> candidates_of(const TuneOptions& options, const Problem& problem, const Device& device) {
  std::vector<std::string> names;
  if (options.kernels.empty()) {
    names = rows_to_time(problem, device);
    // plan() says who declines, and why.
    if (names.empty()) names.emplace_back(plan(problem, device).kernel());
  } else {
    names = forced_names(options.kernels, problem, device);
  }
  std::vector<Candidate> all;
  for (const std::string& name : names) {
    const std::size_t at = name.find('@');
    const std::vector<std::string> tiles = tiles_of(name, problem, device);
    if (tiles.empty()) {
      all.push_back({plan(problem, device, name), name, at == name.npos ? std::string() : name.substr(at + 1), {}});
    }
    for (const std::string& tile : tiles) {
      const std::string chosen = fmt::format("{}@{}", name, tile);
      all.push_back({plan(problem, device, chosen), chosen, tile, {}});
    }
  }
  return all;
}

void time(std::vector<Candidate>& candidates, verify::CaseData& inputs, const TuneOptions& options) {
  std::vector<Plan> plans;
  plans.reserve(candidates.size());
  for (const Candidate& each : candidates) plans.push_back(each.plan);
  const std::vector<Timing> timings = time_plans(plans, inputs, options.samples, options.seed);
  for (std::size_t i = 0; i < candidates.size(); ++i) candidates[i].timing = timings[i];
}

const Candidate& winner(const std::vector<Candidate>& candidates) {
  const auto faster = [](const Candidate& a, const Candidate& b) { return a.timing.median_us < b.timing.median_us; };
  const Candidate& best = *std::min_element(candidates.begin(), candidates.end(), faster);
  const Candidate& usual = candidates.front();
  return best.timing.median_us < kMargin * usual.timing.median_us ? best : usual;
}

Json result_json(const Problem& problem, const std::vector<Candidate>& candidates, const Candidate& chosen, double work,
                 const Device& device) {
  Json all = Json::array();
  for (const Candidate& each : candidates) {
    all.push_back({{"kernel", each.plan.kernel()},
                   {"tile", each.tile.empty() ? Json() : Json(each.tile)},
                   {"launch", each.plan.launch_shape().tile},
                   {"median_us", each.timing.median_us},
                   {"min_us", each.timing.min_us},
                   {"tflops", work / each.timing.median_us / 1e6},
                   {"workspace_bytes", each.plan.workspace_bytes()}});
  }
  return {{"problem", to_string(problem)},    {"device", device.name}, {"threads", device.threads},
          {"usual", candidates.front().name}, {"chosen", chosen.name}, {"candidates", all}};
}

std::string result_text(const Problem& problem, const std::vector<Candidate>& candidates, const Candidate& chosen,
                        double work) {
  Table table({{"row", Align::left},
               {"tile", Align::left},
               {"median", Align::right},
               {"best", Align::right},
               {"rate", Align::right},
               {"of the usual time", Align::right},
               {"", Align::left}});
  const double usual = candidates.front().timing.median_us;
  for (const Candidate& each : candidates) {
    table.row({std::string(each.plan.kernel()), each.tile.empty() ? "-" : each.tile, time_text(each.timing.median_us),
               time_text(each.timing.min_us), count_text(work / each.timing.median_us * 1e6, "FLOP/s"),
               fmt::format("{:.2f}", each.timing.median_us / usual), &each == &chosen ? good("chosen") : ""});
  }
  return fmt::format("{}\n{}", strong(to_string(problem)), table.text());
}

int tune(const TuneOptions& options) {
  if (options.samples < 1) refuse(fmt::format("--samples = {}: at least 1; nearest: 1", options.samples));
  const Device device = present_device_argument(options.device);
  const std::vector<verify::Case> cases = case_arguments(options.cases, options.seed);
  // Before anything is timed: a file that cannot be understood is not written over.
  Choices choices;
  std::error_code error;
  if (!options.write.empty() && std::filesystem::exists(options.write, error)) choices = Choices::read(options.write);

  Progress progress;
  std::size_t number = 0;
  for (const verify::Case& one : cases) {
    std::vector<Candidate> candidates = candidates_of(options, one.problem, device);
    progress.show(
        fmt::format("{}/{}, {} rows and tiles: {}", ++number, cases.size(), candidates.size(), to_string(one.problem)));
    verify::CaseData inputs(one.problem, device, one.data);
    const double work = prepare_timing(one, inputs);
    time(candidates, inputs, options);
    const Candidate& chosen = winner(candidates);
    choices.choose(one.problem, device, chosen.name);
    progress.clear();
    if (options.json) {
      print(result_json(one.problem, candidates, chosen, work, device), -1);
    } else {
      print((number > 1 ? "\n" : "") + result_text(one.problem, candidates, chosen, work));
    }
    std::fflush(stdout);
  }
  if (options.write.empty()) return kExitOk;
  io::OutputFile file(options.write);
  file.write(
      std::string_view("# fattn tune: <problem> | <row or row@tile> | <device>; read by plan() where "
                       "FATTN_CHOICES names this file.\n"));
  file.write(std::string_view(choices.text()));
  file.commit();
  if (!options.json)
    print(fmt::format("\nwritten to {}: FATTN_CHOICES={} makes plan() heed it\n", options.write, options.write));
  return kExitOk;
}

}  // namespace

void add_tune(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<TuneOptions>();
  CLI::App* command = app.add_subcommand("tune", "Time every tile of every row that accepts a problem");
  add_cases(*command, options->cases);
  add_device(*command, options->device);
  add_rows(*command, options->kernels);
  add_timing(*command, options->samples, options->seed);
  command->add_option("--write", options->write, "Add what is chosen to this file, or replace its lines");
  add_json(*command, options->json, "Print one JSON object a problem");
  command->footer(
      "Timed as `fattn bench` does, all rows and tiles of a problem in turn. The fastest is chosen if it takes at "
      "most\n"
      "98 % of the time of what plan() takes by itself, the first line; else that stays. What plan() reads, and how\n"
      "to name a tile by hand, is in docs/api.md, \"Choosing a row\".\n\n"
      "Examples:\n"
      "  fattn tune \"fwd b1 hq8 hk8 sq2048 sk2048 d128 fp32 causal\" --device cpu\n"
      "  fattn tune bench/cases/cpu.txt --device cpu:2 --write choices.txt\n"
      "  fattn tune \"bwd b1 hq8 hk8 sq1024 sk1024 d64 bf16\" --kernel cpu_avx2_backward --json");
  when_chosen(*command, chosen, options, tune);
}

}  // namespace fattn::tool
