// SPDX-License-Identifier: Apache-2.0
#include "selfcheck.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <random>

#include "arguments.hpp"
#include "fattn/error.hpp"
#include "options.hpp"
#include "random_problem.hpp"

namespace fattn::tool {

namespace {

struct CommandOptions {
  double minutes = 1;
  std::int64_t problems = 0;
  std::string device;
  std::optional<std::uint64_t> seed;
  bool json = false;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The oracle's side of a problem. Null where no oracle can compute it yet.
std::unique_ptr<verify::Judge> judge_of(verify::CaseData& data) {
  try {
    return std::make_unique<verify::Judge>(data);
  } catch (const Error& error) {
    if (error.status() != Status::unsupported) throw;
    return nullptr;
  }
}

Json result_json(const SelfcheckOptions& options, const SelfcheckResult& result) {
  Json misses = Json::array();
  for (const SelfcheckMiss& miss : result.misses) {
    misses.push_back({{"case", miss.line}, {"kernel", miss.kernel}, {"what", miss.what}});
  }
  return {{"device", options.device.name}, {"seed", options.seed},       {"seconds", result.seconds},
          {"problems", result.problems},   {"refused", result.refused},  {"checks", result.checks},
          {"checks_of", result.checks_of}, {"misses", std::move(misses)}};
}

void print_result(const SelfcheckOptions& options, const SelfcheckResult& result) {
  Table table({{"row", Align::left}, {"problems", Align::right}});
  for (const auto& [kernel, count] : result.checks_of) table.row({kernel, fmt::format("{}", count)});
  print(table.text());
  print(fmt::format(
      "\nseed {}: {} random problems in {:.0f} s on {}, {} of them refused by every row; {} checks of a row: {}\n",
      options.seed, result.problems, result.seconds, options.device.name, result.refused, result.checks,
      result.misses.empty() ? good("all within bounds") : bad(fmt::format("{} MISSED", result.misses.size()))));
}

int run_selfcheck(const CommandOptions& command) {
  if (!(command.minutes > 0) || !std::isfinite(command.minutes)) {
    refuse(fmt::format("--minutes = {}: a positive number; nearest: 1", command.minutes));
  }
  if (command.problems < 0) refuse(fmt::format("--problems = {}: at least 1; nearest: 1", command.problems));
  SelfcheckOptions options;
  options.device = present_device_argument(command.device);
  options.seed = command.seed ? *command.seed : std::random_device{}() % 1'000'000;
  options.minutes = command.minutes;
  options.problems = command.problems;
  Progress progress;
  const SelfcheckResult result = selfcheck(
      options, progress, [](verify::Judge& judge, const std::string& kernel) { return judge.check(kernel); },
      [&](const SelfcheckMiss& miss) {
        progress.clear();
        if (command.json) return;
        print(fmt::format("{} {}\n  fattn check \"{}\" --kernel {}\n{}\n", bad("MISS"), miss.kernel, miss.line,
                          miss.kernel, miss.what));
        std::fflush(stdout);
      });
  progress.clear();
  // Nothing checked is not a success.
  if (result.checks == 0) {
    throw Error(Status::unsupported, fmt::format("no row of this build accepted any of {} problems on {}",
                                                 result.problems, options.device.name));
  }
  if (command.json) {
    print(result_json(options, result));
  } else {
    print_result(options, result);
  }
  return result.misses.empty() ? kExitOk : kExitMiss;
}

}  // namespace

SelfcheckResult selfcheck(const SelfcheckOptions& options, Progress& progress, const JudgeRow& judge,
                          const std::function<void(const SelfcheckMiss&)>& on_miss) {
  const auto begin = std::chrono::steady_clock::now();
  SelfcheckResult result;
  const auto miss = [&](const verify::Case& one, const std::string& kernel, std::string what) {
    on_miss(result.misses.emplace_back(SelfcheckMiss{verify::to_line(one), kernel, std::move(what)}));
  };
  while (seconds_since(begin) < 60 * options.minutes && (options.problems == 0 || result.problems < options.problems)) {
    const verify::Case one = random_case(options.seed, result.problems);
    ++result.problems;
    progress.show(fmt::format("{:.0f} s, {} checks, {} missed: {}", seconds_since(begin), result.checks,
                              result.misses.size(), verify::to_line(one)));
    const std::vector<std::string> rows = verify::accepting_rows(one.problem, options.device);
    if (rows.empty()) {
      ++result.refused;
      continue;
    }
    verify::CaseData data(one.problem, options.device, one.data);
    const std::unique_ptr<verify::Judge> oracle = judge_of(data);
    if (oracle == nullptr) {
      miss(one, rows.front(), "  accepted, and no oracle computes it");
      continue;
    }
    for (const std::string& kernel : rows) {
      ++result.checks;
      ++result.checks_of[kernel];
      try {
        const verify::CheckResult checked = judge(*oracle, kernel);
        if (!checked.pass) miss(one, kernel, checked.table());
      } catch (const Error& error) {
        miss(one, kernel, fmt::format("  {}", error.what()));
      }
    }
  }
  result.seconds = seconds_since(begin);
  return result;
}

void add_selfcheck(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<CommandOptions>();
  CLI::App* command =
      app.add_subcommand("selfcheck", "Random problems on every kernel row that accepts them, against the fp64 oracle");
  command->add_option("--minutes", options->minutes, "How long; no problem is begun after that")->capture_default_str();
  command->add_option("--problems", options->problems, "At most so many; default: as many as there is time for");
  add_device(*command, options->device);
  command->add_option("--seed", options->seed, "Of the problems; default: a fresh one, which is printed");
  add_json(*command, options->json);
  command->footer(
      "Problems are small and drawn from everything that a problem can say: passes, dtypes, shapes, packed and used\n"
      "lengths, layouts, masks, score options, outputs. A miss prints the line that repeats it. Exit code 1 when a\n"
      "row misses.\n\n"
      "Examples:\n"
      "  fattn selfcheck\n"
      "  fattn selfcheck --minutes 10 --device cuda\n"
      "  fattn selfcheck --seed 7 --problems 200 --device cpu:4 --json");
  when_chosen(*command, chosen, options, run_selfcheck);
}

}  // namespace fattn::tool
