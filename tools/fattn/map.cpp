// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "arguments.hpp"
#include "attention_map.hpp"
#include "fattn/error.hpp"
#include "io/array.hpp"
#include "io/png.hpp"
#include "options.hpp"
#include "text.hpp"

namespace fattn::tool {

namespace {

using std::int64_t;

constexpr int64_t kMostHeads = 64, kMostPixels = 4096;
constexpr int64_t kFewHeads = 6;  // without --heads

struct MapOptions {
  TensorOptions tensors;
  std::vector<int64_t> heads;
  int64_t sequence = 0;
  int64_t size = 512;
  std::string out = "map.png";
  bool json = false;
};

void require_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return;
  refuse(fmt::format("{} = {} must be in [{}, {}]; nearest: {}", name, value, low, high, std::clamp(value, low, high)));
}

std::vector<int64_t> heads_of(const MapOptions& options, const Problem& problem) {
  std::vector<int64_t> heads = options.heads;
  if (heads.empty()) {
    const int64_t count = std::min(kFewHeads, problem.heads_q);
    for (int64_t i = 0; i < count; ++i) heads.push_back(i * problem.heads_q / count);
  }
  require_range("number of --heads", static_cast<int64_t>(heads.size()), 1, kMostHeads);
  for (const int64_t head : heads) require_range("--heads", head, 0, problem.heads_q - 1);
  return heads;
}

int map_files(const MapOptions& options) {
  require_range("--size", options.size, 1, kMostPixels);
  const AttentionInput input = options.tensors.read();
  const Problem problem = problem_of(input, Pass::forward, options.tensors.words());
  const std::vector<int64_t> heads = heads_of(options, problem);
  require_range("--sequence", options.sequence, 0, problem.batch - 1);
  if (problem.seqlen_k == 0) refuse("k has no rows: there is nothing to draw");
  verify::CaseData data = case_of(input, problem, cpu(), 1);
  io::OutputFile file(options.out);  // before the work: a path that cannot be written is found out at once

  Progress progress;
  std::vector<AttentionMap> maps;
  for (const int64_t head : heads) {
    progress.show(fmt::format("head {}, {} of {}", head, maps.size() + 1, heads.size()));
    maps.push_back(attention_map(data, head, static_cast<int>(options.size), options.sequence));
  }
  const io::Image image = draw(maps, problem.seqlen_q, problem.seqlen_k, static_cast<int>(options.size));
  write_png(file, image);
  file.commit();
  progress.clear();

  const AttentionMap& first = maps.front();
  if (options.json) {
    print(Json{{"problem", to_string(problem)},
               {"sequence", options.sequence},
               {"heads", heads},
               {"query_cells", first.query_cells},
               {"key_cells", first.key_cells},
               {"width", image.width},
               {"height", image.height},
               {"written", options.out}});
    return kExitOk;
  }
  std::string names;
  for (const int64_t head : heads) names += fmt::format("{}{}", names.empty() ? "" : ", ", head);
  Facts facts;
  facts.add("problem", to_string(problem));
  facts.add(heads.size() == 1 ? "head" : "heads", names);
  facts.add("cells",
            fmt::format("{} of queries x {} of keys, mean probability of each", first.query_cells, first.key_cells));
  facts.add("written", fmt::format("{}, {} x {} pixels", options.out, image.width, image.height));
  print(facts.text());
  return kExitOk;
}

}  // namespace

void add_map(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<MapOptions>();
  CLI::App* command = app.add_subcommand("map", "A picture of the attention of chosen heads");
  add_tensors(*command, options->tensors);
  command->add_option("--heads", options->heads, "Query heads, comma separated; default: six, spread over all")
      ->delimiter(',');
  command->add_option("--sequence", options->sequence, "Of the batch")->capture_default_str();
  command->add_option("--size", options->size, "Pixels of one map's longer side")->capture_default_str();
  command->add_option("--out", options->out, "The picture, PNG")->capture_default_str();
  add_json(*command, options->json);
  command->footer(
      "A pixel is the mean probability of its queries and keys, on one logarithmic scale for all heads. It is "
      "computed\n"
      "by attention itself, with values that mark the keys of a column of pixels: memory grows with the length times\n"
      "the picture's width, never with the square of the length.\n\n"
      "Examples:\n"
      "  fattn map data/smollm2_layer10_2048.safetensors --causal\n"
      "  fattn map data/smollm2_layer10_2048.safetensors --causal --heads 0,5,8 --size 1024 --out heads.png\n"
      "  fattn map q.npy k.npy v.npy --mask \"causal window=256,0\" --heads 3 --json");
  when_chosen(*command, chosen, options, map_files);
}

}  // namespace fattn::tool
