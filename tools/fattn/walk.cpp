// SPDX-License-Identifier: Apache-2.0
#include "walk.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "fattn/error.hpp"
#include "io/array.hpp"
#include "options.hpp"
#include "text.hpp"

namespace fattn::tool {

namespace {

constexpr std::size_t kColumns = 4;  // of rows of head_dim

struct WalkOptions {
  std::string problem;
  std::string tile = "4x4";
  std::int64_t head = 0;
  std::uint64_t seed = 1;
  bool json = false;
};

WalkTile tile_argument(const std::string& text) {
  WalkTile tile;
  const char* const end = text.data() + text.size();
  const auto [cross, error] = std::from_chars(text.data(), end, tile.queries);
  const auto [rest, second_error] = cross == end ? std::from_chars_result{cross, std::errc::invalid_argument}
                                                 : std::from_chars(cross + 1, end, tile.keys);
  if (error != std::errc() || second_error != std::errc() || *cross != 'x' || rest != end) {
    refuse(fmt::format("--tile = {}: queries x keys; nearest: 4x4", io::printable(text)));
  }
  return tile;
}

// Four decimals; what rounds to zero has no sign.
std::string number(const Json& value) {
  const double x = value.get<double>();
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  const std::string text = fmt::format("{:.4f}", x);
  return text == "-0.0000" ? "0.0000" : text;
}

std::string range_text(const Json& range) {
  const int begin = range[0].get<int>(), end = range[1].get<int>();
  return begin + 1 == end ? fmt::format("{}", begin) : fmt::format("{}..{}", begin, end - 1);
}

// A matrix with the numbers of its rows and columns. At most `shown` columns of one of head_dim.
std::string matrix_text(const std::string& name, const Json& rows, int first_row, int first_column,
                        std::size_t shown = SIZE_MAX) {
  std::vector<Table::Column> columns = {{name, Align::left}};
  const std::size_t count = std::min(shown, rows[0].size());
  for (std::size_t c = 0; c < count; ++c) {
    columns.push_back({fmt::format("{}", first_column + static_cast<int>(c)), Align::right});
  }
  if (count < rows[0].size()) columns.push_back({"", Align::left});
  Table table(columns);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::vector<std::string> cells(1, fmt::format("{}", first_row + static_cast<int>(r)));
    for (std::size_t c = 0; c < count; ++c) cells.push_back(number(rows[r][c]));
    if (count < rows[r].size()) cells.emplace_back("...");
    table.row(cells);
  }
  return table.text();
}

std::string columns_text(const std::string& name, int first_row,
                         const std::vector<std::pair<std::string, const Json*>>& columns) {
  std::vector<Table::Column> heads = {{name, Align::left}};
  for (const auto& [title, values] : columns) heads.push_back({title, Align::right});
  Table table(heads);
  for (std::size_t r = 0; r < columns.front().second->size(); ++r) {
    std::vector<std::string> cells(1, fmt::format("{}", first_row + static_cast<int>(r)));
    for (const auto& [title, values] : columns) cells.push_back(number((*values)[r]));
    table.row(cells);
  }
  return table.text();
}

std::string forward_text(const Json& forward) {
  std::string text;
  for (const Json& tile : forward) {
    const int first = tile["queries"][0].get<int>();
    const std::string queries = range_text(tile["queries"]);
    text += fmt::format("== forward, queries {}: max = -inf, sum = 0, o = 0\n\n", queries);
    for (const Json& step : tile["steps"]) {
      const std::string keys = range_text(step["keys"]);
      if (step["skipped"].get<bool>()) {
        text += fmt::format("queries {}, keys {}: no visible pair, the tile is skipped\n\n", queries, keys);
        continue;
      }
      const int key = step["keys"][0].get<int>();
      text += fmt::format("queries {}, keys {}\n", queries, keys);
      text += matrix_text("s", step["s"], first, key) + '\n';
      text += columns_text("row", first,
                           {{"max of tile", &step["tile_max"]},
                            {"max before", &step["max_before"]},
                            {"max", &step["max"]},
                            {"rescale", &step["rescale"]},
                            {"sum of tile", &step["tile_sum"]},
                            {"sum", &step["sum"]}}) +
              '\n';
      text += matrix_text("p", step["p"], first, key) + '\n';
      text += matrix_text("o", step["o"], first, 0, kColumns) + '\n';
    }
    if (tile.contains("sink")) text += fmt::format("the sink joins the sum as exp({} - max)\n", number(tile["sink"]));
    text += fmt::format("queries {}: lse = max + log(sum), o / sum\n", queries);
    text += columns_text("row", first, {{"lse", &tile["lse"]}}) + '\n';
    text += matrix_text("o", tile["o"], first, 0, kColumns) + '\n';
  }
  return text;
}

std::string merge_text(const Json& merge) {
  if (merge.is_null()) return {};
  Table table({{"row", Align::left},
               {"max a", Align::right},
               {"sum a", Align::right},
               {"max b", Align::right},
               {"sum b", Align::right},
               {"factor a", Align::right},
               {"factor b", Align::right},
               {"max", Align::right},
               {"sum", Align::right}});
  int row = 0;
  for (const Json& each : merge["rows"]) {
    table.row({fmt::format("{}", row++), number(each["max"][0]), number(each["sum"][0]), number(each["max"][1]),
               number(each["sum"][1]), number(each["factor"][0]), number(each["factor"][1]), number(each["merged_max"]),
               number(each["merged_sum"])});
  }
  const bool same = merge["difference"].get<double>() <= kWalkError;
  return fmt::format(
      "== merge: keys below {0} (a) and from {0} on (b), each by itself, then together\n\n{1}\n"
      "o = (factor a * o a + factor b * o b) / sum: {2}\n\n",
      merge["cut"].get<int>(), table.text(), same ? "the same o as above" : "NOT the o above");
}

std::string backward_text(const Json& backward) {
  std::string text = "== backward: delta = dout . o\n\n";
  text += columns_text("row", 0, {{"delta", &backward["delta"]}}) + '\n';
  for (const Json& tile : backward["tiles"]) {
    const int key = tile["keys"][0].get<int>();
    const std::string keys = range_text(tile["keys"]);
    text += fmt::format("== backward, keys {}: dk = 0, dv = 0\n\n", keys);
    for (const Json& step : tile["steps"]) {
      const std::string queries = range_text(step["queries"]);
      if (step["skipped"].get<bool>()) {
        text += fmt::format("keys {}, queries {}: no visible pair, the tile is skipped\n\n", keys, queries);
        continue;
      }
      const int first = step["queries"][0].get<int>();
      text += fmt::format("keys {}, queries {}\n", keys, queries);
      text += matrix_text("p", step["p"], first, key) + '\n';
      text += matrix_text("dp", step["dp"], first, key) + '\n';
      text += matrix_text("ds", step["ds"], first, key) + '\n';
      text += matrix_text("dq", step["dq"], first, 0, kColumns) + '\n';
    }
    text += fmt::format("keys {}: done\n", keys);
    text += matrix_text("dk", tile["dk"], key, 0, kColumns) + '\n';
    text += matrix_text("dv", tile["dv"], key, 0, kColumns) + '\n';
  }
  return text + "== backward: done\n\n" + matrix_text("dq", backward["dq"], 0, 0, kColumns) + '\n';
}

bool agrees(const Json& steps) {
  bool good = steps["merge"].is_null() || steps["merge"]["difference"].get<double>() <= kWalkError;
  for (const Json& error : steps["errors"]) good = good && error.get<double>() <= kWalkError;
  return good;
}

// For a person: four decimals, the first columns of rows of head_dim.
std::string walk_text(const Json& steps) {
  Facts facts;
  facts.add("problem", steps["problem"].get<std::string>());
  facts.add("tile", fmt::format("{} queries x {} keys", steps["tile"][0].get<int>(), steps["tile"][1].get<int>()));
  facts.add("head", fmt::format("{}, random data of seed {}", steps["head"].get<int>(), steps["seed"].get<int>()));
  facts.add("scale", number(steps["scale"]));
  const auto dim = steps["head_dim"].get<std::size_t>();
  if (dim > kColumns) facts.add("shown", fmt::format("{} of {} columns of o and the gradients", kColumns, dim));
  std::string names;
  for (const auto& [name, error] : steps["errors"].items()) names += (names.empty() ? "" : ", ") + name;
  return facts.text() + '\n' + forward_text(steps["forward"]) + merge_text(steps["merge"]) +
         backward_text(steps["backward"]) +
         fmt::format("{}: {} the fp64 oracle\n", names, agrees(steps) ? "as" : "NOT as");
}

int walk_problem(const WalkOptions& options) {
  const Json steps = walk(parse_problem(options.problem), options.head, tile_argument(options.tile), options.seed);
  if (options.json) {
    print(steps);
  } else {
    print(walk_text(steps));
  }
  return agrees(steps) ? kExitOk : kExitMiss;
}

}  // namespace

void add_walk(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<WalkOptions>();
  CLI::App* command = app.add_subcommand("walk", "A small problem tile by tile, with every number");
  command->add_option("problem", options->problem, "The problem in words, at most 64 queries and 64 keys")->required();
  command->add_option("--tile", options->tile, "Queries x keys")->capture_default_str();
  command->add_option("--head", options->head, "Which query head of the first sequence")->capture_default_str();
  command->add_option("--seed", options->seed, "Of the random data")->capture_default_str();
  add_json(*command, options->json, "Print one JSON object, with all columns and digits");
  command->footer(
      "Forward: scores, running maximum and sum, the factor that rescales the old sum and output, then two parts of\n"
      "the keys merged. Backward: P from lse, dP, dS and what they add to dq, dk and dv. In fp64, compared with the\n"
      "oracle at the end; exit code 1 where they differ. docs/walkthrough.md explains the output of the first "
      "example.\n\n"
      "Examples:\n"
      "  fattn walk \"fwd b1 hq1 hk1 sq8 sk8 d64 fp32 causal\" --tile 4x4\n"
      "  fattn walk \"fwd b1 hq2 hk1 sq5 sk9 d8 bf16 window=3,0 sinks softcap=5\" --tile 2x3 --head 1\n"
      "  fattn walk \"bwd b1 hq1 hk1 sq8 sk8 d4 fp32\" --json");
  when_chosen(*command, chosen, options, walk_problem);
}

}  // namespace fattn::tool
