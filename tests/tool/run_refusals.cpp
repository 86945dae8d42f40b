// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "tool/run_support.hpp"

namespace fattn::tool {
namespace {

void refused(const Tensors& tensors, std::initializer_list<std::string_view> words,
             std::vector<std::string> more = {}) {
  const TemporaryDirectory directory;
  std::vector<std::string> arguments = {"run",   write(directory, tensors), "--device", "cpu",
                                        "--out", directory / "out"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  expect_refused(fattn(arguments), words);
  EXPECT_EQ(directory.entries(), 1U) << "something was left behind";
}

TEST(RunRefusals, Shapes) {
  Tensors tensors = small();
  tensors["q"] = normal({24, 4, 16}, 1);
  refused(tensors, {"tensor q", "[24, 4, 16]", "[batch, seqlen, heads, head_dim]"});
  tensors = small();
  tensors["k"] = normal({1, 32, 2, 16}, 1);
  refused(tensors, {"batch of q [2, 24, 4, 16] and k [1, 32, 2, 16] differ"});
  tensors = small();
  tensors["v"] = normal({2, 31, 2, 8}, 1);
  refused(tensors, {"seqlen of k"});
  tensors = small();
  tensors["v"] = normal({2, 32, 1, 8}, 1);
  refused(tensors, {"heads of k"});
  tensors = small();
  tensors["k"] = normal({2, 32, 2, 15}, 1);
  refused(tensors, {"head_dim of q"});
  tensors = small();
  tensors["q"] = normal({2, 24, 3, 16}, 1);
  refused(tensors, {"heads_kv"});
  tensors = small();
  tensors["dout"] = normal({2, 24, 4, 16}, 1);
  refused(tensors, {"dout", "[2, 24, 4, 16]", "needs [2, 24, 4, 8]"});
}

TEST(RunRefusals, NamesAndTypes) {
  Tensors tensors = small();
  tensors.erase("v");
  refused(tensors, {"no tensor \"v\""});
  tensors = small();
  tensors["k"] = {Element::i32, {2, 32, 2, 16}, std::vector<std::byte>(2 * 32 * 2 * 16 * 4)};
  refused(tensors, {"tensor k is I32"});
  tensors["k"] = {Element::bf16, {2, 32, 2, 16}, std::vector<std::byte>(2 * 32 * 2 * 16 * 2)};
  refused(tensors, {"k is BF16 and q is F32", "--dtype"});
  refused(small(), {"--dtype", "fp31"}, {"--dtype", "fp31"});
  refused(small(), {"fp64"}, {"--dtype", "fp64"});
}

TEST(RunRefusals, Values) {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Tensors tensors = small();
    std::vector<float> values = values_of(tensors["v"]);
    values[70] = value;
    tensors["v"] = array_of({2, 32, 2, 8}, values);
    refused(tensors, {"tensor v", "element 70", "not finite"});
  }
  Tensors tensors = small();
  tensors["q"] = array_of({2, 24, 4, 16}, std::vector<float>(2 * 24 * 4 * 16, 1e6F));
  refused(tensors, {"tensor q", "inf", "not finite"}, {"--dtype", "fp16"});
}

TEST(RunRefusals, Words) {
  refused(small(), {"cuasal"}, {"--mask", "cuasal"});
  refused(small(), {"scale", "nan"}, {"--mask", "scale=nan"});
  refused(small(), {"layout and dtype come from the file"}, {"--mask", "seqused=q"});
  refused(small(), {"layout and dtype come from the file"}, {"--mask", "o_strides=1000,32,8,1"});
  refused(small(), {"b a second time"}, {"--mask", "b1"});
  refused(small(), {"needs sinks"}, {"--mask", "sinks"});
  refused(small(), {"dropout"}, {"--mask", "dropout=0.5"});
  refused(small(), {"documents", "read arrays"}, {"--mask", "documents"});
  refused(small(), {"dropout"}, {"--mask", "dropout=1.5"});
  refused(small(), {"--format"}, {"--format", "csv"});
  const TemporaryDirectory directory;
  expect_refused(fattn({"run", write(directory, small()), "--device", "h100"}), {"h100", "described"});
}

TEST(RunRefusals, Files) {
  const TemporaryDirectory directory;
  expect_refused(fattn({"run", directory / "missing.safetensors"}), {"missing.safetensors", "No such file"});
  expect_refused(fattn({"run", directory.path()}), {"not a regular file"});
  io::write_text(directory / "text", "this is no tensor file at all");
  expect_refused(fattn({"run", directory / "text"}), {"not a safetensors file"});
  const std::string good = io::read_text(write(directory, small()));
  for (const std::size_t length : {std::size_t{0}, std::size_t{5}, std::size_t{8}, std::size_t{50}, good.size() - 1}) {
    io::write_text(directory / "cut", good.substr(0, length));
    expect_refused(fattn({"run", directory / "cut"}), {"cut"});
  }
  io::write_text(directory / "long", good + "x");
  expect_refused(fattn({"run", directory / "long"}), {"1 bytes after the last tensor"});

  const std::vector<std::string> npys = write_npys(directory, small());
  expect_refused(fattn({"run", npys[0]}), {"1 .npy file given", "three are needed"});
  expect_refused(fattn({"run", npys[0], npys[1]}), {"2 .npy files"});
  expect_refused(fattn({"run", npys[0], npys[1], directory / "text"}), {"text", "not an npy file"});
  expect_refused(fattn({"run", directory / "text", npys[0]}), {"one .safetensors file"});
  expect_refused(fattn({"run", npys[1], npys[0], npys[2], "--device", "cpu"}), {"differ"});
}

TEST(RunRefusals, OutputFolder) {
  const TemporaryDirectory directory;
  const std::string file = write(directory, small());
  expect_refused(fattn({"run", file, "--out", file}), {"not a folder"});
  expect_refused(fattn({"run", file, "--out", "/no/such/folder"}), {"cannot make folder /no/such/folder"});
  std::filesystem::create_directories(directory / "taken/attention.safetensors");
  const Outcome outcome = fattn({"run", file, "--device", "cpu", "--no-scaling", "--out", directory / "taken"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_TRUE(has(outcome.err, "not a regular file")) << outcome.err;
}

TEST(RunRefusals, AFullDiskLeavesNothing) {
  const TemporaryDirectory directory;
  const std::string file = write(directory, small());
  const std::string out = directory / "out";
  // Blocks of 512 or 1024 bytes, as the shell has it: the safetensors file does not fit.
  const Outcome outcome =
      fattn({"run", file, "--device", "cpu", "--no-scaling", "--json", "--out", out}, "ulimit -f 8;");
  EXPECT_EQ(outcome.code, 2) << outcome.out;
  EXPECT_TRUE(has(outcome.err, "cannot write " + out + "/attention.safetensors: File too large")) << outcome.err;
  EXPECT_FALSE(std::filesystem::exists(out));

  // Older results stay when the new ones do not fit.
  ASSERT_EQ(fattn({"run", file, "--device", "cpu", "--no-scaling", "--out", out}).code, 0);
  const std::string before = io::read_text(out + "/attention.safetensors");
  EXPECT_EQ(fattn({"run", file, "--device", "cpu", "--no-scaling", "--causal", "--out", out}, "ulimit -f 8;").code, 2);
  EXPECT_EQ(io::read_text(out + "/attention.safetensors"), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(out), std::filesystem::directory_iterator()), 2);
}

}  // namespace
}  // namespace fattn::tool
