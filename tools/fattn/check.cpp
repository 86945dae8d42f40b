// SPDX-License-Identifier: Apache-2.0
#include "verify/check.hpp"

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <random>

#include "arguments.hpp"
#include "fattn/error.hpp"
#include "options.hpp"
#include "text.hpp"
#include "verify/case_line.hpp"

namespace fattn::tool {

namespace {

struct CheckOptions {
  std::vector<std::string> cases;
  std::string device;
  std::vector<std::string> kernels;
  std::optional<std::uint64_t> seed;
  std::optional<double> scale;
  bool json = false;
  bool verbose = false;
};

// The drawn seed is printed with every case, so that a miss can be repeated.
std::uint64_t fresh_seed() { return std::random_device{}() % 1'000'000 + 2; }

std::vector<verify::Case> cases_of(const CheckOptions& options) {
  if (options.scale && !std::isfinite(*options.scale)) {
    refuse(fmt::format("--scale = {}: it must be finite; nearest: 1", *options.scale));
  }
  std::vector<verify::Case> cases = case_arguments(options.cases, fresh_seed());
  for (verify::Case& each : cases) {
    if (options.seed) each.data.seed = *options.seed;
    if (options.scale) each.data.q_scale = *options.scale;
  }
  return cases;
}

Json result_json(const verify::CheckResult& result, const Device& device) {
  Json outputs = Json::array();
  // NaN and infinity have no form in JSON: dump() writes null.
  for (const verify::OutputCheck& o : result.outputs) {
    outputs.push_back({{"name", o.name},
                       {"max_error", o.error.max},
                       {"max_bound", o.bound.max},
                       {"naive_max_error", o.naive.max},
                       {"rms_error", o.error.rms},
                       {"rms_bound", o.bound.rms},
                       {"naive_rms_error", o.naive.rms},
                       {"misplaced", o.error.misplaced},
                       {"pass", o.pass}});
  }
  return {{"case", result.line()}, {"problem", to_string(result.problem)},
          {"device", device.name}, {"kernel", result.kernel},
          {"pass", result.pass},   {"damage", result.damage},
          {"outputs", outputs}};
}

// Which rows to check: those named, which must accept, or all that do.
std::vector<std::string> rows_of(const CheckOptions& options, const Problem& problem, const Device& device) {
  if (options.kernels.empty()) return verify::accepting_rows(problem, device);
  return forced_names(options.kernels, problem, device);
}

// "kernel = x was forced and declines: head_dim = 80: ...\n  problem: ..." without what the table says already.
std::string short_reason(const std::string& reason) {
  static constexpr std::string_view kBefore = "declines: ";
  const std::size_t at = reason.find(kBefore);
  const std::size_t begin = at == std::string::npos ? 0 : at + kBefore.size();
  return reason.substr(begin, std::min(reason.find('\n', begin), reason.size()) - begin);
}

class Report {
 public:
  explicit Report(const CheckOptions& options) : options_(options) {}

  void begin(const verify::Case& one) {
    if (!options_.json) print(fmt::format("{}{}\n", checked_ + misses_ > 0 ? "\n" : "", strong(verify::to_line(one))));
  }

  void declined(const std::vector<verify::RowAnswer>& answers) {
    if (options_.json) return;
    Table table({{"", Align::left}, {"", Align::left}});
    for (const verify::RowAnswer& each : answers) {
      if (!each.reason.empty()) table.row({each.kernel, short_reason(each.reason)});
    }
    if (!table.empty()) print(fmt::format("  declined\n{}", table.text()));
  }

  void result(const verify::CheckResult& result, const Device& device) {
    ++checked_;
    if (!result.pass) ++misses_;
    if (options_.json) return print(result_json(result, device), -1);
    for (const verify::OutputCheck& o : result.outputs) {
      table_.row({&o == &result.outputs.front() ? result.kernel : "", o.name, error_text(o.error.max),
                  error_text(o.bound.max), error_text(o.naive.max), error_text(o.error.rms), error_text(o.bound.rms),
                  error_text(o.naive.rms), o.pass ? good("ok") : bad("MISS")});
    }
    if (!result.pass) failures_ += "\n" + result.table();
  }

  void end_case() {
    if (options_.json) return;
    print(table_.text());
    if (!failures_.empty()) print(failures_);
    table_ = empty_table();
    failures_.clear();
  }

  int finish(std::size_t cases, std::size_t empty) const {
    if (!options_.json) {
      std::string text =
          fmt::format("\n{} row{} on {} problem{}: ", checked_, checked_ == 1 ? "" : "s", cases, cases == 1 ? "" : "s");
      text += misses_ == 0 ? good("all within bounds") : bad(fmt::format("{} MISSED", misses_));
      if (empty > 0) text += fmt::format("; {} problem{} no row accepts", empty, empty == 1 ? "" : "s");
      print(text + '\n');
    }
    return misses_ == 0 ? kExitOk : kExitMiss;
  }

 private:
  static Table empty_table() {
    return Table({{"row", Align::left},
                  {"output", Align::left},
                  {"max error", Align::right},
                  {"bound", Align::right},
                  {"naive", Align::right},
                  {"rms error", Align::right},
                  {"bound", Align::right},
                  {"naive", Align::right},
                  {"", Align::left}});
  }

  const CheckOptions& options_;
  Table table_ = empty_table();
  std::string failures_;
  int checked_ = 0;
  int misses_ = 0;
};

int check(const CheckOptions& options) {
  const std::vector<verify::Case> cases = cases_of(options);
  const Device device = present_device_argument(options.device);
  Report report(options);
  Progress progress;
  std::size_t number = 0, empty = 0;
  for (const verify::Case& one : cases) {
    ++number;
    const std::vector<std::string> rows = rows_of(options, one.problem, device);
    progress.clear();
    report.begin(one);
    if (options.verbose || rows.empty()) report.declined(verify::row_answers(one.problem, device));
    if (rows.empty()) ++empty;
    if (rows.empty()) continue;
    progress.show(fmt::format("{}/{} oracle", number, cases.size()));
    verify::CaseData data(one.problem, device, one.data);
    verify::Judge judge(data);
    for (const std::string& row : rows) {
      progress.show(fmt::format("{}/{} {}", number, cases.size(), row));
      verify::CheckResult result = judge.check(row);
      result.kernel = row;  // with its tile, where one was named
      progress.clear();
      report.result(result, device);
    }
    report.end_case();
  }
  // Nothing checked is not a success.
  if (empty == cases.size()) {
    throw Error(Status::unsupported,
                fmt::format("no row of this build accepts {} on {}",
                            cases.size() == 1 ? "this problem" : "any of these problems", device.name));
  }
  return report.finish(cases.size(), empty);
}

}  // namespace

void add_check(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App* command = app.add_subcommand("check", "Compare kernel rows with the fp64 oracle on fresh random data");
  add_cases(*command, options->cases);
  add_device(*command, options->device);
  add_rows(*command, options->kernels);
  command->add_option("--seed", options->seed, "Of the random data; default: a fresh one, which is printed");
  command->add_option("--scale", options->scale, "Factor on q: large values make peaked rows");
  command->add_flag("-v,--verbose", options->verbose, "Also list the rows that decline, and why");
  add_json(*command, options->json, "Print one JSON object a row");
  command->footer(
      "An output passes when its largest and its RMS error are within twice those of a same-precision naive "
      "computation,\n"
      "plus one rounding unit (docs/numerics.md). Exit code 1 when a row misses.\n\n"
      "Examples:\n"
      "  fattn check \"fwd b2 hq6 hk2 sq100 sk130 d64 bf16 causal lse\"\n"
      "  fattn check \"bwd b1 hq4 hk4 sq64 sk64 d32 fp32 window=16,0\" --kernel cpu_scalar_backward --seed 7\n"
      "  fattn check bench/cases/cpu.txt --device cpu --json");
  when_chosen(*command, chosen, options, check);
}

}  // namespace fattn::tool
