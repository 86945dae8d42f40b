// SPDX-License-Identifier: Apache-2.0
#include <png.h>

#include <cmath>

#include "tool/run_support.hpp"

namespace fattn::tool {
namespace {

using Shape = std::vector<std::int64_t>;

Outcome run(const std::string& file, std::vector<std::string> more) {
  more.insert(more.begin(), {"run", file, "--device", "cpu"});
  return fattn(more);
}

// softmax(q k^T / sqrt(d)) v in double, keys up to the diagonal when causal.
std::vector<float> attention(const Tensors& t, bool causal) {
  const Shape qs = t.at("q").shape, vs = t.at("v").shape;
  const std::vector<float> q = values_of(t.at("q")), k = values_of(t.at("k")), v = values_of(t.at("v"));
  const std::int64_t d = qs[3], dv = vs[3], keys = vs[1], group = qs[2] / vs[2];
  std::vector<float> o;
  for (std::int64_t b = 0; b < qs[0]; ++b) {
    for (std::int64_t i = 0; i < qs[1]; ++i) {
      for (std::int64_t h = 0; h < qs[2]; ++h) {
        std::vector<double> p(static_cast<std::size_t>(keys), 0.0), row(static_cast<std::size_t>(dv), 0.0);
        double sum = 0;
        for (std::int64_t j = 0; j < (causal ? i + keys - qs[1] + 1 : keys); ++j) {
          double s = 0;
          for (std::int64_t c = 0; c < d; ++c) {
            s += static_cast<double>(q[static_cast<std::size_t>(((b * qs[1] + i) * qs[2] + h) * d + c)]) *
                 static_cast<double>(k[static_cast<std::size_t>(((b * keys + j) * vs[2] + h / group) * d + c)]);
          }
          sum += p[static_cast<std::size_t>(j)] = std::exp(s / std::sqrt(static_cast<double>(d)));
        }
        for (std::int64_t j = 0; j < keys; ++j) {
          for (std::int64_t c = 0; c < dv; ++c) {
            row[static_cast<std::size_t>(c)] +=
                p[static_cast<std::size_t>(j)] / sum *
                static_cast<double>(v[static_cast<std::size_t>(((b * keys + j) * vs[2] + h / group) * dv + c)]);
          }
        }
        o.insert(o.end(), row.begin(), row.end());
      }
    }
  }
  return o;
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b, double most) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], most) << i;
}

TEST(Run, WritesWhatItComputes) {
  const TemporaryDirectory directory;
  const Tensors tensors = small();
  const std::string file = write(directory, tensors);
  for (const bool causal : {true, false}) {
    const std::string out = directory / (causal ? "causal" : "full");
    std::vector<std::string> arguments = {"--out", out, "--no-scaling"};
    if (causal) arguments.emplace_back("--causal");
    const Outcome outcome = run(file, arguments);
    ASSERT_EQ(outcome.code, 0) << outcome.out << outcome.err;
    const Tensors results = read(out + "/attention.safetensors");
    ASSERT_EQ(results.size(), 5U);
    EXPECT_EQ(results.at("o").shape, (Shape{2, 24, 4, 8}));
    EXPECT_EQ(results.at("lse").shape, (Shape{2, 4, 24}));
    EXPECT_EQ(results.at("dq").shape, (Shape{2, 24, 4, 16}));
    EXPECT_EQ(results.at("dk").shape, (Shape{2, 32, 2, 16}));
    EXPECT_EQ(results.at("dv").shape, (Shape{2, 32, 2, 8}));
    expect_near(values_of(results.at("o")), attention(tensors, causal), 1e-5);
  }
}

TEST(Run, PrintsEverything) {
  const TemporaryDirectory directory;
  const Outcome outcome = run(write(directory, small()), {"--causal"});
  EXPECT_EQ(outcome.code, 0);
  for (const char* part : {"fwd b2 hq4 hk2 sq24 sk32 d16", "bwd b2", "standard attention", "tokens/s", "FLOP/s",
                           "fp64 oracle", "naive's", "dq", "--out"}) {
    EXPECT_TRUE(has(outcome.out, part)) << part << '\n' << outcome.out;
  }
  EXPECT_EQ(outcome.err, "");
}

TEST(Run, PrintsJson) {
  const TemporaryDirectory directory;
  const std::string file = write(directory, small());
  const Json json = run(file, {"--causal", "--json", "--out", directory / "out", "--no-scaling"}).json();
  EXPECT_EQ(json["inputs"]["q"]["shape"], (Shape{2, 24, 4, 16}));
  EXPECT_EQ(json["forward"]["problem"], "fwd b2 hq4 hk2 sq24 sk32 d16 dv8 fp32 causal lse");
  EXPECT_GT(json["forward"]["tokens_per_second"].get<double>(), 0);
  for (const char* output : {"o", "lse"}) EXPECT_TRUE(json["forward"]["errors"][output]["pass"].get<bool>());
  for (const char* output : {"dq", "dk", "dv"}) EXPECT_TRUE(json["backward"]["errors"][output]["pass"].get<bool>());
  EXPECT_EQ(json["written"].size(), 2U);
  const Json forward = run(file, {"--json", "--forward-only", "--no-check"}).json();
  EXPECT_FALSE(forward.contains("backward"));
  EXPECT_FALSE(forward["forward"].contains("errors"));
}

TEST(Run, UsesDoutOfTheFile) {
  const TemporaryDirectory directory;
  Tensors tensors = small();
  tensors["dout"] = array_of({2, 24, 4, 8}, std::vector<float>(2 * 24 * 4 * 8, 0.0F));
  const std::string out = directory / "out";
  ASSERT_EQ(run(write(directory, tensors), {"--out", out, "--no-scaling"}).code, 0);
  for (const char* name : {"dq", "dk", "dv"}) {
    for (const float value : values_of(read(out + "/attention.safetensors").at(name))) ASSERT_EQ(value, 0.0F);
  }
}

TEST(Run, UsesDlseOfTheFile) {
  const TemporaryDirectory directory;
  Tensors tensors = small();
  tensors["dout"] = array_of({2, 24, 4, 8}, std::vector<float>(2 * 24 * 4 * 8, 0.0F));
  tensors["dlse"] = normal({2, 4, 24}, 7);
  const std::string out = directory / "out";
  const Outcome outcome = run(write(directory, tensors), {"--out", out, "--no-scaling"});
  ASSERT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  const Tensors results = read(out + "/attention.safetensors");
  for (const float value : values_of(results.at("dv"))) ASSERT_EQ(value, 0.0F);
  float largest = 0;
  for (const float value : values_of(results.at("dq"))) largest = std::max(largest, std::fabs(value));
  EXPECT_GT(largest, 1e-2F);
}

TEST(Run, TheSeedDrawsDout) {
  const TemporaryDirectory directory;
  const std::string file = write(directory, small());
  const auto dv_of = [&](const char* seed) {
    const std::string out = directory / ("out" + std::string(seed));
    EXPECT_EQ(run(file, {"--out", out, "--no-scaling", "--no-check", "--seed", seed}).code, 0);
    return values_of(read(out + "/attention.safetensors").at("dv"));
  };
  EXPECT_EQ(dv_of("4"), dv_of("4"));
  EXPECT_NE(dv_of("4"), dv_of("5"));
}

TEST(Run, UsesOtherTensorsThatTheProblemNames) {
  const TemporaryDirectory directory;
  Tensors tensors = small();
  tensors["sinks"] = array_of({4}, {100, 100, 100, 100});
  tensors["alibi_slopes"] = array_of({1, 4}, {0.5, 0.25, 0.125, 0.0625});
  tensors["bias"] = normal({1, 4, 24, 32}, 5);
  tensors["unrelated"] = normal({3}, 6);
  const std::string file = write(directory, tensors), out = directory / "out";
  const Outcome outcome = run(file, {"--mask", "causal sinks alibi bias=hqk softcap=20", "--out", out, "--no-scaling"});
  ASSERT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_TRUE(has(outcome.out, "not used      \"unrelated\"")) << outcome.out;
  EXPECT_EQ(read(out + "/attention.safetensors").at("dbias").shape, (Shape{1, 4, 24, 32}));
  EXPECT_EQ(read(out + "/attention.safetensors").at("dsink").shape, (Shape{4}));
  // The sinks take nearly all of the weight.
  for (const float value : values_of(read(out + "/attention.safetensors").at("o"))) ASSERT_LT(std::fabs(value), 1e-6F);
  for (const float value : values_of(read(out + "/attention.safetensors").at("lse"))) ASSERT_NEAR(value, 100, 1e-3);
}

TEST(Run, NpyInAndOut) {
  const TemporaryDirectory directory;
  const std::vector<std::string> files = write_npys(directory, small());
  const std::string out = directory / "out";
  const Outcome outcome = fattn({"run", files[0], files[1], files[2], "--device", "cpu", "--out", out, "--no-scaling"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Array o = io::read_npy(io::FileSource(out + "/o.npy"));
  EXPECT_EQ(o.shape, (Shape{2, 24, 4, 8}));
  expect_near(values_of(o), attention(small(), false), 1e-5);
  EXPECT_TRUE(std::filesystem::exists(out + "/dk.npy"));
  // bf16 is written as the fp32 that holds the same values.
  const std::string wide = directory / "wide";
  ASSERT_EQ(fattn({"run", files[0], files[1], files[2], "--device", "cpu", "--dtype", "bf16", "--out", wide,
                   "--no-scaling", "--forward-only"})
                .code,
            0);
  expect_near(values_of(io::read_npy(io::FileSource(wide + "/o.npy"))), attention(small(), false), 3e-2);
  // And the other way round.
  const std::string other = directory / "other";
  ASSERT_EQ(fattn({"run", files[0], files[1], files[2], "--device", "cpu", "--format", "safetensors", "--out", other,
                   "--no-scaling", "--forward-only"})
                .code,
            0);
  EXPECT_TRUE(std::filesystem::exists(other + "/attention.safetensors"));
}

TEST(Run, DrawsAttentionMaps) {
  const TemporaryDirectory directory;
  const std::string out = directory / "out";
  ASSERT_EQ(run(write(directory, small()), {"--causal", "--out", out, "--no-scaling", "--forward-only"}).code, 0);
  png_image facts = {};
  facts.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_file(&facts, (out + "/attention_maps.png").c_str()), 0) << facts.message;
  EXPECT_GT(facts.width, 500U);
  EXPECT_GT(facts.height, 200U);
  facts.format = PNG_FORMAT_RGB;
  std::vector<std::uint8_t> pixels(PNG_IMAGE_SIZE(facts));
  ASSERT_NE(png_image_finish_read(&facts, nullptr, pixels.data(), 0, nullptr), 0) << facts.message;
}

TEST(Run, MeasuresScaling) {
  const TemporaryDirectory directory;
  const Tensors tensors = {
      {"q", normal({1, 8, 1, 8}, 1)}, {"k", normal({1, 8, 1, 8}, 2)}, {"v", normal({1, 8, 1, 8}, 3)}};
  const std::string out = directory / "out";
  ASSERT_EQ(run(write(directory, tensors), {"--causal", "--out", out, "--forward-only"}).code, 0);
  Outcome lines;
  lines.out = io::read_text(out + "/scaling.jsonl");
  std::map<std::string, double> last_bytes;
  for (const Json& line : lines.lines()) {
    EXPECT_EQ(line["direction"], "forward");
    EXPECT_GT(line["time_ms"].get<double>(), 0);
    EXPECT_GT(line["bytes"].get<double>(), last_bytes[line["impl"]]);
    last_bytes[line["impl"]] = line["bytes"];
  }
  EXPECT_EQ(lines.lines().back()["seqlen"], 1024);
  EXPECT_GT(last_bytes["standard"], 4.0 * 1024 * 1024);
  EXPECT_LT(last_bytes["fattn"], 1024 * 1024);
}

TEST(Run, EmptySequencesAreFine) {
  const TemporaryDirectory directory;
  const Tensors tensors = {
      {"q", normal({1, 4, 2, 8}, 1)}, {"k", normal({1, 0, 2, 8}, 2)}, {"v", normal({1, 0, 2, 8}, 3)}};
  const std::string out = directory / "out";
  const Outcome outcome = run(write(directory, tensors), {"--out", out});
  ASSERT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  for (const float value : values_of(read(out + "/attention.safetensors").at("o"))) EXPECT_EQ(value, 0.0F);
}

}  // namespace
}  // namespace fattn::tool
