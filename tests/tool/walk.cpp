// SPDX-License-Identifier: Apache-2.0
#include "walk.hpp"

#include <cmath>
#include <sstream>

#include "tool/support.hpp"
#include "verify/case_data.hpp"

namespace fattn::tool {
namespace {

constexpr const char* kDocument = FATTN_SOURCE_DIR "/docs/walkthrough.md";
constexpr const char* kCausal = "fwd b1 hq1 hk1 sq8 sk8 d64 fp32 causal";

// The text between lines ```<label> and ```, joined.
std::string blocks(const std::string& label) {
  std::istringstream document(io::read_text(kDocument));
  std::string text;
  bool inside = false;
  for (std::string line; std::getline(document, line);) {
    if (inside && line == "```") {
      inside = false;
    } else if (inside) {
      text += line + '\n';
    } else {
      inside = line == "```" + label;
    }
  }
  return text;
}

std::string without_empty_lines(const std::string& text) {
  std::istringstream stream(text);
  std::string result;
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty()) result += line + '\n';
  }
  return result;
}

// The document tells what the tool prints: its blocks are the whole output, in order.
TEST(Walk, TheDocumentIsWhatItPrints) {
  EXPECT_EQ(blocks("sh"), "fattn walk \"" + std::string(kCausal) + "\" --tile 4x4\n");
  const Outcome outcome = fattn({"walk", kCausal, "--tile", "4x4"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(without_empty_lines(blocks("walk")), without_empty_lines(outcome.out))
      << "run the command of docs/walkthrough.md and put its output there";
}

// Whatever the tiles, the results are the oracle's; walk() measures against it, and this holds it to that.
TEST(Walk, AnyTileGivesTheOraclesResults) {
  for (const char* text :
       {kCausal, "bwd b2 hq4 hk2 sq5 sk11 d8 dv3 bf16 window=4,2 softcap=5 sinks alibi",
        "fwd b1 hq1 hk1 sq9 sk4 d3 fp16 causal", "fwd b1 hq2 hk2 sq7 sk7 d16 fp64 chunk=3 scale=-0.3",
        "fwd b1 hq3 hk1 sq1 sk20 d5 fp32 causal_top_left", "fwd b1 hq1 hk1 sq4 sk6 d8 e4m3"}) {
    for (const WalkTile tile : {WalkTile{4, 4}, WalkTile{1, 1}, WalkTile{3, 5}, WalkTile{64, 64}}) {
      const Problem problem = parse_problem(text);
      const Json steps = walk(problem, problem.heads_q - 1, tile, 3);
      EXPECT_EQ(steps["errors"].size(), problem.heads_q == problem.heads_kv ? 5U : 3U);
      for (const auto& [name, error] : steps["errors"].items()) {
        EXPECT_LE(error.get<double>(), kWalkError) << text << ' ' << name << ' ' << tile.queries << 'x' << tile.keys;
      }
      if (!steps["merge"].is_null()) EXPECT_LE(steps["merge"]["difference"].get<double>(), 1e-12) << text;
    }
  }
}

// The numbers of each step fit together.
TEST(Walk, StepsAddUp) {
  const Json steps = walk(parse_problem("fwd b1 hq1 hk1 sq6 sk12 d8 fp32 causal"), 0, {2, 4}, 1);
  int rescaled = 0;
  for (const Json& tile : steps["forward"]) {
    std::vector<double> sum(2, 0.0), max(2, -INFINITY);
    for (const Json& step : tile["steps"]) {
      if (step["skipped"].get<bool>()) continue;
      for (std::size_t r = 0; r < 2; ++r) {
        const double factor = step["rescale"][r];
        EXPECT_EQ(step["max_before"][r].get<double>(), max[r]);
        EXPECT_EQ(step["max"][r].get<double>(), std::max(max[r], step["tile_max"][r].get<double>()));
        EXPECT_NEAR(factor, std::exp(max[r] - step["max"][r].get<double>()), 1e-15);
        sum[r] = sum[r] * factor + step["tile_sum"][r].get<double>();
        max[r] = step["max"][r];
        EXPECT_NEAR(step["sum"][r].get<double>(), sum[r], 1e-12);
        rescaled += factor > 0 && factor < 1 ? 1 : 0;
      }
    }
    for (std::size_t r = 0; r < 2; ++r) EXPECT_NEAR(tile["lse"][r].get<double>(), max[r] + std::log(sum[r]), 1e-12);
  }
  EXPECT_GT(rescaled, 0) << "the data never move a maximum: the walk shows nothing";
}

TEST(Walk, PrintsJson) {
  const Json steps = fattn({"walk", kCausal, "--tile", "4x4", "--json"}).json();
  EXPECT_EQ(steps["problem"], kCausal);
  EXPECT_EQ(steps["forward"].size(), 2U);
  EXPECT_TRUE(steps["forward"][0]["steps"][1]["skipped"].get<bool>());
  EXPECT_EQ(steps["forward"][1]["steps"][1]["o"][3].size(), 64U);
  EXPECT_EQ(steps["backward"]["tiles"].size(), 2U);
}

TEST(Walk, RefusesWhatItCannotShow) {
  const auto refused = [](const std::string& problem, std::vector<std::string> more,
                          std::initializer_list<std::string_view> words) {
    more.insert(more.begin(), {"walk", problem});
    expect_refused(fattn(more), words);
  };
  refused("fwd sq65 sk8 d8", {}, {"seqlen_q = 65", "nearest: 64"});
  refused("fwd sq8 sk0 d8", {}, {"seqlen_k = 0", "nearest: 1"});
  refused("fwd sq8 d8 dropout=0.5", {}, {"dropout", "nearest"});
  refused("fwd sq8 d8 documents", {}, {"read from data"});
  refused("fwd sq8 d8 tq8", {}, {"packed"});
  refused("fwd sq8 d8 bias=1", {}, {"bias"});
  refused("decode sq1 sk8 d8", {}, {"decode"});
  refused("fwd sq8 d8 casual", {}, {"casual", "nearest: causal"});
  refused(kCausal, {"--tile", "4"}, {"--tile", "nearest: 4x4"});
  refused(kCausal, {"--tile", "4x"}, {"--tile"});
  refused(kCausal, {"--tile", "4x4x4"}, {"--tile"});
  refused(kCausal, {"--tile", "0x4"}, {"= 0", "nearest: 1"});
  refused(kCausal, {"--tile", "4x99999999999"}, {"--tile"});
  refused(kCausal, {"--head", "1"}, {"--head = 1", "nearest: 0"});
  refused(kCausal, {"--head", "-1"}, {"--head = -1"});
}

}  // namespace
}  // namespace fattn::tool
