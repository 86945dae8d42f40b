// SPDX-License-Identifier: Apache-2.0
#include "core/describe.hpp"
#include "core/expect_error.hpp"
#include "core/fake_rows.hpp"

namespace fattn {
namespace {

// The fake rows' tile is 64 queries x 32 keys.
TEST(Traffic, ForwardByHand) {
  const Traffic t = fake_plan("fwd b2 hq4 hk2 sq128 sk96 d128 bf16 lse").traffic();
  const double q = 2.0 * 4 * 128 * 128 * 2, kv = 2.0 * 2 * 96 * 128 * 2, lse = 2.0 * 4 * 128 * 4;
  EXPECT_EQ(t.memory_bytes, 2 * q + 2 * kv + lse);
  // Two tiles of queries, each of the 4 heads reads all keys and values.
  EXPECT_EQ(t.bytes, 2 * q + lse + 2.0 * 4 * 2 * 96 * (128 + 128) * 2);
  const double scores = 2.0 * 4 * 128 * 96 * 2;
  EXPECT_EQ(t.standard_bytes, t.memory_bytes + 4 * scores);
  EXPECT_EQ(t.standard_memory_bytes, t.memory_bytes + 2 * scores);
}

// Four query heads of each key head share a tile: 16 queries of each, so 2 queries need one tile and not four.
TEST(Traffic, HeadsSideBySideReadTheirKeysOnce) {
  const auto bytes = [](const char* text, int together) {
    fake::tile = "64x32, 2 stages, 1 splits of the keys, " + std::to_string(together) + " heads side by side";
    const Traffic t = fake_plan(text).traffic();
    fake::tile = fake::kTile;
    return t.bytes;
  };
  const double qo = 2 * 2.0 * 8 * 128 * 2, keys = 1024 * (128 + 128) * 2.0;
  EXPECT_EQ(bytes("fwd b1 hq8 hk2 sq2 sk1024 d128 bf16", 1), qo + 8 * keys);
  EXPECT_EQ(bytes("fwd b1 hq8 hk2 sq2 sk1024 d128 bf16", 4), qo + 2 * keys);
  // 20 queries of each head: two tiles of 16, beside four heads with one tile of 64 each.
  EXPECT_EQ(bytes("fwd b1 hq8 hk2 sq20 sk1024 d128 bf16", 4), 10 * qo + 2 * 2 * keys);
}

TEST(Traffic, MasksSkipTiles) {
  // Causal 128x128: the first 64 queries visit 2 tiles of 32 keys, the others 4.
  const Traffic t = fake_plan("fwd sq128 d128 bf16 causal").traffic();
  EXPECT_EQ(t.bytes, 2.0 * 128 * 128 * 2 + (64 + 128) * (128 + 128) * 2.0);
  const Traffic none = fake_plan("fwd sq128 sk0 d128 bf16").traffic();
  EXPECT_EQ(none.bytes, 2.0 * 128 * 128 * 2);
}

TEST(Traffic, BackwardByHand) {
  const Traffic t = fake_plan("bwd sq128 sk64 d128 bf16").traffic();
  const double q = 128 * 128 * 2, k = 64 * 128 * 2, lse = 128 * 4;
  EXPECT_EQ(t.memory_bytes, 4 * q + 4 * k + lse);  // q o dout dq, k v dk dv
  // Two tiles of keys, each visits all queries: q, dout, lse and delta in, dq in and out in fp32.
  EXPECT_EQ(t.bytes, lse + 3 * q + 4 * k + 2 * 128 * (2 * 128 * 2 + 8 + 8 * 128.0));
  EXPECT_EQ(t.standard_bytes, t.memory_bytes + 7 * 128 * 64 * 2.0);
}

TEST(Explain, SaysAllOfIt) {
  fake::workspace_bytes = 3 << 20;
  const std::string text = fake_plan("fwd b4 hq32 hk8 sq4096 sk4096 d128 bf16 causal", h100()).explain();
  const std::string on_cpu = fake_plan("fwd sq256 d80 fp32", cpu(2)).explain();
  fake::workspace_bytes = 0;
  for (const char* part :
       {"problem    fwd b4 hq32 hk8 sq4096 sk4096 d128 bf16 causal\n", "device     NVIDIA H100 SXM5, sm90, 132 SMs",
        "described only", "kernel     sm90_forward\n", "tile 64x32, 2 stages; 7 blocks of", "workspace  3.00 MiB\n",
        "work       550 GFLOP, 555.8 us at the device's peak", "standard attention 8.", "traffic    "}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in\n" << text;
  }
  for (const char* part : {"2 threads", "refused    sm90_forward: device = cpu: this row runs on cuda\n",
                           "           cpu_fast_forward: head_dim = 80: this row has 128\n"}) {
    EXPECT_NE(on_cpu.find(part), std::string::npos) << part << " is not in\n" << on_cpu;
  }
  EXPECT_EQ(text.back(), '\n');
}

TEST(Explain, RowsThatRefuseForOneReasonAreOneLine) {
  const std::vector<Refusal> groups = grouped({{"a", "x"}, {"b", "x"}, {"c", "x"}, {"d", "y"}, {"e", "x"}, {"f", "x"}});
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].kernel, "a and 2 more");
  EXPECT_EQ(groups[0].reason, "x");
  EXPECT_EQ(groups[1].kernel, "d");
  EXPECT_EQ(groups[1].reason, "y");
  EXPECT_EQ(groups[2].kernel, "e and 1 more");
  EXPECT_TRUE(grouped({}).empty());
}

}  // namespace
}  // namespace fattn
