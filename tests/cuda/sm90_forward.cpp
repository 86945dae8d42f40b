// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "cuda/sm90/forward_plan.hpp"
#include "cuda/sm90/tensor_map.hpp"
#include "fattn/fattn.hpp"
#include "verify/random.hpp"

// The host's half of the sm90 forward rows, and the arithmetic that it shares with the kernel. No GPU is needed.
namespace fattn::gpu::sm90 {
namespace {

constexpr const char* kRow = "sm90_forward_bf16_d128_band";
constexpr const char* kVarlenRow = "sm90_forward_bf16_d128_band_varlen";

Problem example() { return parse_problem("fwd b2 hq8 hk2 sq300 sk400 d128 bf16 causal lse"); }

std::string refusal(const Problem& problem, const Device& device = h100()) {
  try {
    plan(problem, device, kRow);
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::unsupported) << error.what();
    return error.what();
  }
  return "accepted";
}

Band random_band(verify::Random& random) {
  BandLimits limits;
  if (random.between(0, 1)) limits.left = static_cast<int>(random.between(0, 400));
  if (random.between(0, 1)) limits.right = static_cast<int>(random.between(0, 400));
  if (random.between(0, 3) == 0) limits.right = 0;
  if (random.between(0, 3) == 0) limits.chunk = static_cast<int>(random.between(1, 300));
  limits.top_left = random.between(0, 3) == 0;
  return Band::of(limits, static_cast<int>(random.between(1, 500)), static_cast<int>(random.between(0, 900)));
}

TEST(Sm90Walk, MeetsEveryPairAndMasksWhatItMust) {
  verify::Random random(1);
  for (int round = 0; round < 400; ++round) {
    const Band band = random_band(random);
    const int m = random.between(0, 1) ? 128 : 192, n = static_cast<int>(random.between(1, 16)) * 16;
    for (int begin = 0; begin < band.seqlen_q; begin += m) {
      const int end = std::min(begin + m, band.seqlen_q);
      const TileWalk walk = walk_tiles(band, begin, end, n);
      ASSERT_LT(walk.begin, walk.end);
      ASSERT_LE(walk.begin, walk.plain_begin);
      ASSERT_LE(walk.plain_begin, walk.plain_end);
      for (int query = begin; query < end; ++query) {
        const Interval keys = band.visible(query);
        if (!walk.first_masked) {
          ASSERT_LE(keys.begin, (walk.end - 1) * n) << "the first tile needs a mask";
          ASSERT_GE(keys.end, walk.end * n) << "the first tile needs a mask";
        }
        const bool some = keys.begin < keys.end;
        if (some) {
          ASSERT_GE(keys.begin, walk.begin * n);
          ASSERT_LE(keys.end, walk.end * n);
        }
        if (walk.plain_begin == walk.plain_end) continue;
        ASSERT_LT(walk.plain_end, walk.end) << "the first tile walked is never plain";
        ASSERT_LE(keys.begin, walk.plain_begin * n) << "a plain tile needs a mask";
        ASSERT_GE(keys.end, walk.plain_end * n) << "a plain tile needs a mask";
        ASSERT_GT(keys.end, walk.plain_end * n) << "a row has met no key before the plain tiles";
      }
    }
  }
}

TEST(Sm90Walk, OfSomeRowsMayLeaveOutTheLastTile) {
  verify::Random random(3);
  for (int round = 0; round < 400; ++round) {
    const Band band = random_band(random);
    const int n = static_cast<int>(random.between(1, 16)) * 16;
    for (int begin = -64; begin < band.seqlen_q; begin += 128) {
      const TileWalk all = walk_tiles(band, std::max(begin, 0), std::min(begin + 128, band.seqlen_q), n);
      int end_before = 0;
      for (int first = begin; first < std::min(begin + 128, band.seqlen_q); first += 64) {
        const int from = std::max(first, 0), to = std::min(first + 64, band.seqlen_q);
        const TileWalk walk = own_walk(band, from, to, n, all, end_before);
        ASSERT_EQ(walk.begin, all.begin) << "all let go of the same last tile";
        ASSERT_LT(walk.begin, walk.end);
        ASSERT_LE(walk.end, all.end);
        ASSERT_GE(walk.end, all.end - 1) << "the loader is not so far ahead";
        ASSERT_LE(end_before, walk.end) << "the first rows' walk is the shortest";
        end_before = walk.end;
        for (int query = from; query < to; ++query) {
          const Interval keys = band.visible(query);
          if (keys.begin < keys.end) ASSERT_LE(keys.end, walk.end * n);
          if (walk.plain_begin == walk.plain_end) continue;
          ASSERT_LE(keys.begin, walk.plain_begin * n) << "a plain tile needs a mask";
          ASSERT_GE(keys.end, walk.plain_end * n) << "a plain tile needs a mask";
        }
      }
    }
  }
}

TEST(Sm90Walk, CausalIsPlainAfterTheDiagonalTile) {
  const Band band = Band::of({.right = 0}, 1024, 1024);
  const TileWalk walk = walk_tiles(band, 512, 640, 128);
  EXPECT_EQ(walk.begin, 0);
  EXPECT_EQ(walk.plain_begin, 0);
  EXPECT_EQ(walk.plain_end, 4);
  EXPECT_EQ(walk.end, 5);
  EXPECT_TRUE(walk.first_masked);
}

TEST(Sm90Schedule, EveryItemOnceAndTheLongestFirst) {
  verify::Random random(2);
  for (int round = 0; round < 100; ++round) {
    const int heads = static_cast<int>(random.between(1, 9)), batch = static_cast<int>(random.between(1, 5));
    const int rows = static_cast<int>(random.between(1, 12));
    const Schedule schedule{.items = rows * heads * batch,
                            .row_tiles = rows,
                            .section_heads = static_cast<int>(random.between(1, heads * batch)),
                            .heads = heads,
                            .batch = batch,
                            .queued = 1,
                            .first_row = -64 * static_cast<int>(random.between(0, 1))};
    std::set<std::tuple<int, int, int>> seen;
    for (int index = 0; index < schedule.items; ++index) {
      const Item item = schedule.item(index, 128);
      const int from_first = item.row - schedule.first_row;
      EXPECT_TRUE(from_first >= 0 && from_first % 128 == 0 && from_first < rows * 128);
      EXPECT_TRUE(item.head >= 0 && item.head < heads && item.batch >= 0 && item.batch < batch);
      EXPECT_TRUE(seen.insert({item.row, item.head, item.batch}).second) << "item " << index << " comes twice";
      const bool opens = index % (schedule.section_heads * rows) == 0;
      EXPECT_TRUE(!opens || from_first == (rows - 1) * 128) << "a section starts with its last rows";
    }
  }
}

TEST(Sm90Tile, ByTypeAndHeadDim) {
  constexpr ForwardTile tile = forward_tile(DType::bf16, 128, 128);
  static_assert(tile.d == 128 && tile.dv == 128);
  EXPECT_EQ(tile.threads(), 384);
  EXPECT_EQ(forward_tile(DType::bf16, 120, 120), ForwardTile{});
  EXPECT_EQ(forward_tile(DType::fp32, 128, 128), ForwardTile{});
  EXPECT_EQ(forward_tile(DType::bf16, 128, 128, TileFor::long_sequences), ForwardTile{});
  EXPECT_GT(forward_tile(DType::bf16, 64, 64, TileFor::long_sequences).m, forward_tile(DType::bf16, 64, 64).m);
}

TEST(Sm90Plan, ForADescribedDevice) {
  const Plan plan = fattn::plan(example(), h100());
  EXPECT_EQ(plan.kernel(), kRow);
  EXPECT_EQ(plan.launch_shape().grid, 2 * 8 * 3);  // fewer items than multiprocessors
  EXPECT_EQ(plan.launch_shape().threads, 384);
  EXPECT_LE(plan.launch_shape().shared_memory_bytes, h100().shared_memory_per_block);
  EXPECT_EQ(plan.workspace_bytes(), 2 * sizeof(int)) << "items of different length are queued";
  Problem even = example();
  even.mask = full();
  EXPECT_EQ(fattn::plan(even, h100()).workspace_bytes(), 0u);
  Problem large = example();
  large.batch = 64;
  EXPECT_EQ(fattn::plan(large, h100()).launch_shape().grid, h100().sm_count);
}

TEST(Sm90Plan, AcceptsEveryBandAndHead) {
  for (const char* text :
       {"", " causal", " causal_top_left", " window=100,0", " window=-1,7", " chunk=96", " causal window=64,0"})
    for (const char* shape : {"hq8 hk8 sq300 sk400", "hq8 hk1 sq1 sk5000", "hq3 hk3 sq700 sk20", "hq2 hk2 sq9 sk0"}) {
      if (std::string(text) == " causal_top_left") continue;
      const Problem problem = parse_problem("fwd b2 " + std::string(shape) + " d128 bf16" + text);
      const bool few = std::string(shape).find("sk5000") != std::string::npos;
      EXPECT_EQ(fattn::plan(problem, h200()).kernel(), few ? kVarlenRow : kRow) << to_string(problem);
    }
  Problem problem = example();
  problem.mask = causal_top_left();
  problem.deterministic = problem.batch_invariant = true;
  EXPECT_EQ(fattn::plan(problem, h200()).kernel(), kRow);
}

TEST(Sm90Plan, LongSequencesHaveATileOfTheirOwn) {
  const auto row = [](const char* text) { return std::string(fattn::plan(parse_problem(text), h200()).kernel()); };
  EXPECT_EQ(row("fwd b4 hq32 hk32 sq4096 sk4096 d64 bf16"), "sm90_forward_bf16_d64_band_long");
  EXPECT_EQ(row("fwd b4 hq32 hk32 sq2048 sk2048 d64 bf16 causal"), "sm90_forward_bf16_d64_band");
  EXPECT_EQ(row("fwd b4 hq32 hk32 sq4096 sk4096 d64 fp16 causal"), "sm90_forward_fp16_d64_band_long");
  EXPECT_EQ(row("fwd b4 hq32 hk32 sq1024 sk1024 d64 bf16"), "sm90_forward_bf16_d64_band");
  EXPECT_EQ(row("fwd b4 hq32 hk32 sq8192 sk8192 d64 bf16 window=500,0"), "sm90_forward_bf16_d64_band");
}

TEST(Sm90Plan, RefusalsNameTheArgument) {
  const auto expect = [](auto change, const char* words) {
    Problem problem = example();
    change(problem);
    const std::string reason = refusal(problem);
    EXPECT_NE(reason.find(words), std::string::npos) << reason;
  };
  expect([](Problem&) {}, "accepted");
  expect([](Problem& p) { p.head_dim = 136; }, "head_dim = 136: this row has up to 128");
  expect([](Problem& p) { p.head_dim = 100; }, "head_dim = 100: this row has multiples of 8; nearest: 104");
  expect([](Problem& p) { p.head_dim_v = 192; }, "head_dim_v = 192: this row has up to 128");
  expect([](Problem& p) { p.dtype = DType::fp16; }, "dtype = fp16: this row has bf16");
  expect([](Problem& p) { p.out_dtype = DType::fp32; }, "out_dtype = fp32: this row has bf16");
  expect([](Problem& p) { p.total_q = 600, p.total_k = 800; }, "cu_seqlens");
  expect([](Problem& p) { p.seqused_k = true; }, "seqused");
  expect([](Problem& p) { p.mask.documents = true; }, "documents");
  expect([](Problem& p) { p.mask.prefix = true; }, "prefix");
  expect([](Problem& p) { p.mask.block_sparse = {64, 64, false, false}; }, "block_sparse");
  expect([](Problem& p) { p.score.softcap = 30; }, "softcap = 30");
  expect([](Problem& p) { p.score.bias = Bias{}; }, "bias");
  expect([](Problem& p) { p.score.alibi = Alibi::per_head; }, "alibi");
  expect([](Problem& p) { p.sinks = true; }, "accepted");
  expect([](Problem& p) { p.dropout = 0.25; }, "dropout = 0.25");
  expect([](Problem& p) { p.return_max_logit = true; }, "max_logit");
  expect([](Problem& p) { p.softmax_scale = 3e38; }, "softmax_scale = 3e+38");
  expect([](Problem& p) { p.alignment = 8; }, "alignment = 8: this row needs 16");
  expect([](Problem& p) { p.mask = causal_top_left() & chunk(64); }, "chunk = 64");
  Problem wide = example();
  EXPECT_NE(refusal(wide, a100()).find("compute_capability = 80"), std::string::npos);
}

TEST(Sm90Plan, StridesThatTheCopyEngineTakes) {
  const auto with = [](Strides strides) {
    Problem problem = example();
    problem.strides.k = strides;
    return refusal(problem);
  };
  EXPECT_EQ(with({.batch = 400 * 256, .seqlen = 256, .head = 128}), "accepted");
  EXPECT_EQ(with({.batch = 400 * 264, .seqlen = 264, .head = 136}), "accepted");
  EXPECT_EQ(with({.batch = 256, .seqlen = 512, .head = 128}), "accepted") << "any order of dimensions";
  EXPECT_NE(with({.batch = 400 * 260, .seqlen = 260, .head = 128}).find("strides.k.seqlen = 260"), std::string::npos);
  EXPECT_NE(with({.batch = 400 * 264, .seqlen = 264, .head = 132}).find("strides.k.head = 132"), std::string::npos);
  EXPECT_NE(with({.batch = 400 * 256 + 1, .seqlen = 256, .head = 128}).find("nearest: 102408"), std::string::npos);
  Problem single = example();  // a stride that is never taken may be anything
  single.batch = 1;
  single.strides.k = Strides{.batch = 3, .seqlen = 256, .head = 128};
  EXPECT_EQ(refusal(single), "accepted");
}

TEST(Sm90Plan, ScaleGoesIntoAPositiveFactorAndTheQueriesBits) {
  const ForwardRow row{DType::bf16, forward_tile(DType::bf16, 128, 128), 0, false, false};
  Problem problem = example();
  const auto score = [&](double scale) {
    problem.softmax_scale = scale;
    return plan_forward(row, problem).score;
  };
  EXPECT_FLOAT_EQ(score(0.5).scale_log2, 0.5f * 1.44269504f);
  EXPECT_EQ(score(0.5).query_xor, 0u);
  EXPECT_FLOAT_EQ(score(-0.5).scale_log2, 0.5f * 1.44269504f);
  EXPECT_EQ(score(-0.5).query_xor, 0x80008000u);
  EXPECT_EQ(score(0).query_and, 0u);
  EXPECT_EQ(score(0).scale_log2, 1.f);
  EXPECT_EQ(score(1e-300).query_and, 0u);
}

// Keys outside are not read at all, so that NaN there goes nowhere; keys inside are each seen by some query.
TEST(Sm90Plan, KeysThatAreSeen) {
  const ForwardRow row{DType::bf16, forward_tile(DType::bf16, 128, 128), 0, false, false};
  verify::Random random(3);
  for (int round = 0; round < 600; ++round) {
    Problem problem = example();
    problem.seqlen_q = random.between(1, 60);
    problem.seqlen_k = random.between(0, 90);
    problem.mask = {};
    problem.mask.causal = random.between(0, 1);
    problem.mask.causal_top_left = random.between(0, 2) == 0;
    if (random.between(0, 1)) problem.mask.window_left = random.between(0, 40);
    if (random.between(0, 1)) problem.mask.window_right = random.between(0, 40);
    if (random.between(0, 1)) problem.mask.chunk = random.between(1, 30);
    if (!decline_forward(row, problem, h100()).empty()) continue;
    const ForwardPlan plan = plan_forward(row, problem);
    const Band band = Band::of(plan.limits, static_cast<int>(problem.seqlen_q), static_cast<int>(problem.seqlen_k));
    for (int key = 0; key < band.seqlen_k; ++key) {
      bool seen = false;
      for (int query = 0; query < band.seqlen_q; ++query) seen |= band.keep(query, key);
      ASSERT_EQ(seen, key >= plan.keys_begin && key < plan.keys_end) << to_string(problem) << " key " << key;
    }
  }
}

TEST(Sm90Plan, SectionsOfUnequalItems) {
  const ForwardRow row{DType::bf16, forward_tile(DType::bf16, 128, 128), 0, false, false};
  const auto heads = [&](const char* text) { return plan_forward(row, parse_problem(text)).schedule.section_heads; };
  EXPECT_EQ(heads("fwd b1 hq64 hk8 sq16384 sk16384 d128 bf16 causal"), 8)
      << "query heads that share keys stay together";
  EXPECT_EQ(heads("fwd b1 hq64 hk8 sq2048 sk2048 d128 bf16 causal"), 32);
  EXPECT_EQ(heads("fwd b4 hq16 hk16 sq4096 sk4096 d128 bf16 causal"), 16) << "512 items";
  EXPECT_EQ(heads("fwd b32 hq16 hk16 sq512 sk512 d128 bf16 causal"), 32) << "however few items they have";
  EXPECT_EQ(heads("fwd b1 hq40 hk40 sq512 sk512 d128 bf16 causal"), 20) << "sections are even";
  EXPECT_EQ(heads("fwd b1 hq64 hk8 sq16384 sk16384 d128 bf16"), 8) << "equal items: one head after the other";
  EXPECT_GE(heads("fwd b1 hq64 hk8 sq16384 sk0 d128 bf16"), 1);
}

}  // namespace
}  // namespace fattn::gpu::sm90
