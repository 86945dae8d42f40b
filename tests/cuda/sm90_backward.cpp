// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda/common/key_list.hpp"
#include "cuda/sm90/backward_plan.hpp"
#include "fattn/fattn.hpp"
#include "verify/random.hpp"

// The host's half of the sm90 backward rows, and the arithmetic that it shares with the kernel. No GPU is needed.
namespace fattn::gpu::sm90 {
namespace {

constexpr const char* kRow = "sm90_backward_bf16_d128_band";
constexpr BackwardRow kPlanned{DType::bf16, backward_tile(DType::bf16, 128, 128), 0, false, false};
constexpr BackwardRow kVarlen{DType::bf16, backward_tile(DType::bf16, 128, 128), 0, true, false};

Problem example() { return parse_problem("bwd b2 hq8 hk2 sq300 sk400 d128 bf16 causal"); }

std::string refusal(const Problem& problem, const Device& device = h100()) {
  try {
    plan(problem, device, kRow);
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::unsupported) << error.what();
    return error.what();
  }
  return "accepted";
}

// Bands that the row accepts: no chunk with a negative right limit.
Band random_band(verify::Random& random) {
  for (;;) {
    BandLimits limits;
    if (random.between(0, 1)) limits.left = static_cast<int>(random.between(0, 400));
    if (random.between(0, 1)) limits.right = static_cast<int>(random.between(0, 400));
    if (random.between(0, 3) == 0) limits.right = 0;
    if (random.between(0, 3) == 0) limits.chunk = static_cast<int>(random.between(1, 300));
    limits.top_left = random.between(0, 3) == 0;
    const Band band =
        Band::of(limits, static_cast<int>(random.between(1, 500)), static_cast<int>(random.between(1, 900)));
    if (band.chunk == 0 || band.right >= 0) return band;
  }
}

TEST(Sm90BackwardWalk, MeetsEveryPairAndMasksWhatItMust) {
  verify::Random random(1);
  for (int round = 0; round < 200; ++round) {
    const Band band = random_band(random);
    const int m = random.between(0, 1) ? 128 : 64, n = 128;
    for (int key = 0; key < band.seqlen_k; key += n) {
      const TileRange tiles = BackwardSchedule::query_tiles(band, key, m, n);
      ASSERT_LE(tiles.begin, tiles.interior_begin);
      ASSERT_LE(tiles.interior_end, tiles.end);
      for (int k = key; k < key + n; ++k) {
        const Interval queries = queries_of(band, k);
        for (int query = 0; query < band.seqlen_q; ++query) {
          const bool kept = k < band.seqlen_k && band.keep(query, k);
          ASSERT_EQ(kept, query >= queries.begin && query < queries.end) << "key " << k << " query " << query;
          const int tile = query / m;
          if (kept) {
            ASSERT_TRUE(tile >= tiles.begin && tile < tiles.end) << "a pair is missed";
          }
          if (tile >= tiles.interior_begin && tile < tiles.interior_end) {
            ASSERT_TRUE(kept) << "an interior tile needs a mask";
          }
        }
      }
    }
  }
}

// The turn of a query tile begins with the first key tile that Band::tiles names, and each passes it to the next: so
// those that visit the tile must be that one and its successors, without a gap.
TEST(Sm90BackwardWalk, TurnsPassFromKeyTileToKeyTile) {
  verify::Random random(2);
  for (int round = 0; round < 3000; ++round) {
    const Band band = random_band(random);
    const int m = random.between(0, 1) ? 128 : 64, n = 128;
    for (int tile = 0; tile * m < band.seqlen_q; ++tile) {
      int turn = band.tiles(tile * m, std::min(tile * m + m, band.seqlen_q), n).begin;
      for (int key_tile = 0; key_tile * n < band.seqlen_k; ++key_tile) {
        const TileRange queries = BackwardSchedule::query_tiles(band, key_tile * n, m, n);
        if (tile < queries.begin || tile >= queries.end) continue;
        ASSERT_EQ(turn, key_tile) << "left " << band.left << " right " << band.right << " chunk " << band.chunk << " "
                                  << band.seqlen_q << " x " << band.seqlen_k << " tile " << tile;
        ++turn;
      }
    }
  }
}

TEST(Sm90BackwardWalk, EveryHeadOfAGroupInEitherDirection) {
  const auto steps = [](int direction, int start) {
    BackwardItem item{};
    item.head = 2;
    item.direction = direction;
    item.queries = {3, 3, 5, 5};
    item.start = start;
    QueryWalk walk(item, 2);
    std::vector<std::pair<int, int>> taken;
    for (int step = 0; step < 4; ++step, walk.advance()) taken.emplace_back(walk.head, walk.tile);
    return taken;
  };
  using Steps = std::vector<std::pair<int, int>>;
  EXPECT_EQ(steps(-1, 4), (Steps{{4, 4}, {4, 3}, {5, 4}, {5, 3}}));
  EXPECT_EQ(steps(1, 3), (Steps{{4, 3}, {4, 4}, {5, 3}, {5, 4}}));
  EXPECT_EQ(steps(1, 4), (Steps{{4, 4}, {4, 3}, {5, 4}, {5, 3}})) << "from the middle, once round for each head";
}

TEST(Sm90BackwardSchedule, EveryItemOnceAndTheFirstKeysFirst) {
  verify::Random random(3);
  for (int round = 0; round < 100; ++round) {
    const int heads = static_cast<int>(random.between(1, 9)), batch = static_cast<int>(random.between(1, 5));
    const int tiles = static_cast<int>(random.between(1, 12));
    const BackwardSchedule schedule{.items = tiles * heads * batch,
                                    .key_tiles = tiles,
                                    .section_heads = static_cast<int>(random.between(1, heads * batch)),
                                    .heads = heads,
                                    .batch = batch,
                                    .direction = random.between(0, 1) ? 1 : -1,
                                    .spread = 0,
                                    .workers = 0,
                                    .teams = 0,
                                    .paired = 0};
    std::set<std::tuple<int, int, int>> seen;
    std::map<std::pair<int, int>, int> next;
    for (int index = 0; index < schedule.items; ++index) {
      const BackwardItem item = schedule.item(index, 128);
      EXPECT_EQ(item.key, item.key_tile * 128);
      EXPECT_TRUE(item.head >= 0 && item.head < heads && item.batch >= 0 && item.batch < batch);
      EXPECT_TRUE(seen.insert({item.key, item.head, item.batch}).second) << "item " << index << " comes twice";
      const int turn = next[{item.head, item.batch}]++;
      EXPECT_EQ(item.key_tile, turn) << "a block waits for one that starts after it";
    }
  }
}

// Blocks of teams that all run: each takes its items in turn, and in a round adds one part of a step and the other part
// of the step before when both have their turn. All end, every query tile has been visited by every key tile that it
// sees, and no more.
TEST(Sm90BackwardTeams, NobodyWaitsForever) {
  verify::Random random(4);
  for (int sample = 0; sample < 400; ++sample) {
    const int m = random.between(0, 1) ? 128 : 64, n = random.between(0, 1) ? 128 : 64;
    const int group = static_cast<int>(random.between(1, 2));
    BandLimits limits;
    const bool causal = random.between(0, 1);
    if (causal) limits.right = static_cast<int>(random.between(0, 200));
    const int seqlen_k = static_cast<int>(random.between(1, 1500));
    const int seqlen_q = causal ? static_cast<int>(random.between(std::max(1, seqlen_k - 300), seqlen_k + 300))
                                : static_cast<int>(random.between(1, 1500));
    const Band band = Band::of(limits, seqlen_q, seqlen_k);
    const int query_tiles = (seqlen_q + m - 1) / m, key_tiles = (seqlen_k + n - 1) / n;
    BackwardSchedule schedule{};
    schedule.heads = static_cast<int>(random.between(1, 3)), schedule.batch = static_cast<int>(random.between(1, 3));
    schedule.key_tiles = key_tiles;
    schedule.workers = static_cast<int>(random.between(1, key_tiles));
    schedule.teams = static_cast<int>(random.between(1, 4));
    schedule.paired = causal;
    schedule.items = schedule.team_items();
    const int heads = schedule.heads * schedule.batch;

    using Visit = std::tuple<int, int, int, int, int>;  // of a part, a head of keys, of queries, and query tile
    std::map<std::tuple<int, int>, int> items;          // of a head and key tile
    std::map<Visit, int> turns, wanted;
    struct Block {
      int index;
      BackwardItem item{};
      std::vector<std::vector<Visit>> left;  // rounds, the next one last
    };
    std::vector<Block> blocks;
    for (int i = 0; i < schedule.blocks(); ++i) blocks.push_back({.index = i, .item = {}, .left = {}});
    const auto advance = [&](Block& block) {
      while (block.left.empty()) {
        if (block.index >= schedule.items) return false;
        block.item = schedule.team_item(block.index, n);
        block.index += schedule.blocks();
        if (block.item.key < 0) continue;
        ++items[{block.item.batch * schedule.heads + block.item.head, block.item.key_tile}];
        block.item.queries = BackwardSchedule::query_tiles(band, block.item.key, m, n);
        block.item.start = schedule.team_start(block.item);
        QueryWalk walk(block.item, group);
        const int steps = (block.item.queries.end - block.item.queries.begin) * group;
        if (steps == 0) continue;
        block.left.resize(steps + 1);
        for (int i = 0; i < steps; ++i, walk.advance()) {
          for (int part = 0; part < 2; part++) {
            const Visit visit{part, block.item.batch, block.item.head, walk.head, walk.tile};
            block.left[steps - i - (part == 0 ? 1 : 0)].push_back(visit);
            ++wanted[visit];
          }
        }
      }
      for (const Visit& visit : block.left.back()) {
        const int tile = std::get<4>(visit);
        const TileRange seen = band.tiles(tile * m, std::min(tile * m + m, seqlen_q), n);
        if (turns[visit] != TeamTurns(schedule, block.item).at(tile, seen)) return false;
      }
      for (const Visit& visit : block.left.back()) ++turns[visit];
      block.left.pop_back();
      return true;
    };
    // As in_teams() asks: every key tile sees the last query tile.
    bool suits = true;
    for (int key_tile = 0; key_tile < key_tiles; ++key_tile)
      suits &= BackwardSchedule::query_tiles(band, key_tile * n, m, n).end == query_tiles;
    if (!suits || BackwardSchedule::query_tiles(band, 0, m, n).begin != 0) continue;
    for (bool some = true; some;) {
      some = false;
      for (Block& block : blocks) some |= advance(block);
    }
    ASSERT_EQ(turns, wanted) << "sample " << sample;
    ASSERT_EQ(items.size(), static_cast<std::size_t>(heads * key_tiles));
    for (const auto& [item, times] : items) ASSERT_EQ(times, 1);
    for (const Block& block : blocks) ASSERT_TRUE(block.left.empty());
  }
}

TEST(Sm90BackwardPlan, ForADescribedDevice) {
  const Plan plan = fattn::plan(example(), h100());
  EXPECT_EQ(plan.kernel(), kRow);
  EXPECT_EQ(plan.launch_shape().grid, 2 * 2 * 4);
  EXPECT_EQ(plan.launch_shape().threads, 384);
  EXPECT_LE(plan.launch_shape().shared_memory_bytes, h100().shared_memory_per_block);
  const std::size_t rows = 2 * 8 * 320;
  EXPECT_EQ(plan.workspace_bytes(), rows * (128 + 2) * 4 + 768 + 256)
      << "fp32 dQ, two values a row, the turns of 160 parts, a ticket, by 256 bytes";
}

TEST(Sm90BackwardPlan, WorkspaceIsLinear) {
  for (const char* words : {"", " causal", " deterministic", " dout_strides=0,0,0,0"}) {
    const auto bytes = [&](int seqlen) {
      const std::string length = std::to_string(seqlen);
      return fattn::plan(parse_problem("bwd hq4 hk2 sq" + length + " sk" + length + " d128 bf16" + words), h200(), kRow)
          .workspace_bytes();
    };
    EXPECT_LE(bytes(1 << 20), 1024 * bytes(1 << 10)) << words;
  }
}

TEST(Sm90BackwardPlan, AcceptsEveryBandAndHead) {
  for (const char* text : {"", " causal", " window=100,0", " window=-1,7", " chunk=96", " causal window=64,0"})
    for (const char* shape : {"hq8 hk8 sq300 sk400", "hq8 hk1 sq1 sk5000", "hq3 hk3 sq700 sk20", "hq2 hk2 sq9 sk0"})
      for (const char* more : {"", " deterministic", " dlse", " sinks dsink", " dout_strides=0,0,0,0", " scale=-3"}) {
        const Problem problem = parse_problem("bwd b2 " + std::string(shape) + " d128 bf16" + text + more);
        EXPECT_EQ(fattn::plan(problem, h200()).kernel(), kRow) << to_string(problem);
      }
}

TEST(Sm90BackwardPlan, RefusalsNameTheArgument) {
  const auto expect = [](auto change, const char* words) {
    Problem problem = example();
    change(problem);
    const std::string reason = refusal(problem);
    EXPECT_NE(reason.find(words), std::string::npos) << reason;
  };
  expect([](Problem&) {}, "accepted");
  expect([](Problem& p) { p.head_dim = 136; }, "head_dim = 136: this row has up to 128");
  expect([](Problem& p) { p.head_dim_v = 60; }, "head_dim_v = 60: this row has multiples of 8; nearest: 64");
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
  expect([](Problem& p) { p.dropout = 0.25; }, "dropout = 0.25");
  expect([](Problem& p) { p.softmax_scale = 3e38; }, "softmax_scale = 3e+38");
  expect([](Problem& p) { p.alignment = 8; }, "alignment = 8: this row needs 16");
  expect([](Problem& p) { p.mask = causal_top_left() & chunk(64); }, "chunk = 64");
  expect([](Problem& p) { p.strides.dk = Strides{.batch = 400 * 260, .seqlen = 260, .head = 128}; },
         "strides.dk.seqlen = 260");
  EXPECT_NE(refusal(example(), a100()).find("compute_capability = 80"), std::string::npos);
}

// dO of any strides is taken: where the copy engine does not take them, the kernel before makes a copy.
TEST(Sm90BackwardPlan, CopiesDoutOnlyWhereItMust) {
  const auto copies = [](Strides strides) {
    Problem problem = example();
    problem.strides.dout = strides;
    EXPECT_EQ(refusal(problem), "accepted");
    return plan_backward(kPlanned, problem, h100()).copy_dout;
  };
  EXPECT_FALSE(plan_backward(kPlanned, example(), h100()).copy_dout);
  EXPECT_FALSE(copies({.batch = 300 * 1024, .seqlen = 128, .head = 300 * 128}));
  EXPECT_TRUE(copies({.batch = 0, .seqlen = 0, .head = 0, .dim = 0}));
  EXPECT_TRUE(copies({.batch = 300 * 1024, .seqlen = 0, .head = 128}));
  EXPECT_TRUE(copies({.batch = 300 * 1028, .seqlen = 1028, .head = 128}));
}

// Blocks that take turns with wide heads share heads in teams where every key tile sees the last query tile, as many as
// was fastest: two query tiles apart, where heads are short and key tiles get shorter a single one.
TEST(Sm90BackwardPlan, TeamsWhereHeadsAreWide) {
  const BackwardRow wide{DType::bf16, backward_tile(DType::bf16, 256, 256), 0, false, false};
  const auto schedule = [&](const std::string& text) {
    return plan_backward(wide, parse_problem(text), h200()).schedule;
  };
  const auto workers = [&](int seqlen, const char* mask) {
    return schedule(fmt::format("bwd b{} hq8 hk8 sq{} sk{} d256 bf16 {} deterministic", 16384 / seqlen, seqlen, seqlen,
                                mask))
        .workers;
  };
  const std::vector<int> lengths{512, 1024, 2048, 4096, 8192, 16384};
  std::vector<int> full, causal;
  for (const int seqlen : lengths) full.push_back(workers(seqlen, "")), causal.push_back(workers(seqlen, "causal"));
  EXPECT_EQ(full, (std::vector<int>{4, 8, 16, 32, 64, 128}));
  EXPECT_EQ(causal, (std::vector<int>{8, 16, 32, 32, 64, 128}));
  EXPECT_FALSE(schedule("bwd b4 hq8 hk8 sq4096 sk4096 d256 bf16 deterministic").paired);
  EXPECT_EQ(schedule("bwd b4 hq8 hk8 sq4096 sk4096 d256 bf16 deterministic").teams, 4);
  EXPECT_TRUE(schedule("bwd b4 hq8 hk8 sq4096 sk4096 d256 bf16 causal deterministic").paired);
  EXPECT_EQ(schedule("bwd b4 hq8 hk8 sq4096 sk4096 d256 bf16").workers, 0) << "in any order";
  EXPECT_EQ(schedule("bwd b4 hq8 hk8 sq4096 sk4096 d256 bf16 deterministic batch_invariant").workers, 0);
  EXPECT_EQ(schedule("bwd b4 hq8 hk8 sq4096 sk4096 d256 bf16 window=300,100 deterministic").workers, 0);
  EXPECT_EQ(schedule("bwd b1 hq1 hk1 sq4096 sk64 d256 bf16 deterministic").workers, 0) << "one key tile";
}

TEST(Sm90BackwardPlan, SectionsShareTheCache) {
  Problem problem = parse_problem("bwd b1 hq64 hk8 sq1024 sk1024 d128 bf16 causal");
  const auto section = [&] { return plan_backward(kPlanned, problem, h200()).schedule.section_heads; };
  EXPECT_LE(std::int64_t{section()} * 8 * 1024 * 1024, h200().l2_bytes);
  EXPECT_GT(section(), 1);
  problem.mask = full();
  EXPECT_EQ(section(), 1) << "equal items: one head after the other";
  problem.deterministic = true;
  EXPECT_GT(plan_backward(kPlanned, problem, h200()).alone.section_heads, 1)
      << "blocks that take turns should not start with one another";
  problem.seqlen_k = 0;
  EXPECT_EQ(section(), 1);
}

// Every row of every sequence has a place of its own in the workspace, whole tiles each, and is found again.
TEST(Sm90BackwardVarlen, QueryTilesOfPackedSequences) {
  verify::Random random(7);
  for (int round = 0; round < 200; ++round) {
    const int batch = static_cast<int>(random.between(1, 12)), m = random.between(0, 1) ? 64 : 128;
    std::vector<std::int32_t> cu_seqlens{0};
    for (int i = 0; i < batch; ++i)
      cu_seqlens.push_back(cu_seqlens.back() + static_cast<int>(random.between(0, 3) ? random.between(0, 400) : 0));
    const int total = cu_seqlens.back() + static_cast<int>(random.between(0, 300));
    const VarlenLengths lengths{batch, {cu_seqlens.data(), nullptr, total, 400}, {nullptr, nullptr, 0, 400}};
    const int tiles = total / m + batch + 1;
    std::set<int> rows;
    for (int tile = 0; tile < tiles; ++tile) {
      const QueryRows at = query_rows(lengths, 0, tile, m);
      ASSERT_GE(at.first, 0);
      ASSERT_EQ(at.first % m, 0);
      for (int row = at.first; row < std::min(at.first + m, at.sequence.rows); ++row)
        ASSERT_TRUE(rows.insert(at.sequence.begin + row).second) << "row comes twice";
    }
    ASSERT_EQ(rows.size(), static_cast<std::size_t>(total)) << "rows behind the last sequence have a place too";
  }
}

TEST(Sm90BackwardVarlen, TheListHoldsTheKeyTilesOfAnyLengths) {
  verify::Random random(8);
  for (int round = 0; round < 100; ++round) {
    const int batch = static_cast<int>(random.between(1, 20));
    std::vector<std::int32_t> cu_seqlens{0};
    for (int i = 0; i < batch; ++i) cu_seqlens.push_back(cu_seqlens.back() + static_cast<int>(random.between(0, 700)));
    const int total = cu_seqlens.back() + static_cast<int>(random.between(0, 300));
    const VarlenLengths lengths{batch, {nullptr, nullptr, 0, 700}, {cu_seqlens.data(), nullptr, total, 700}};
    std::int64_t tiles = (rows_behind(lengths.k, batch).rows + 127) / 128;
    for (int i = 0; i < batch; ++i) tiles += (sequence_rows(lengths.k, i).rows + 127) / 128;
    EXPECT_LE(tiles, key_list_capacity(lengths, 128));
  }
}

TEST(Sm90BackwardVarlen, PlansForPackedAndUsedLengths) {
  for (const char* shape :
       {"sq700 sk700 tq1500 tk1600", "sq700 sk700 seqused=qk", "sq700 sk700 tq1500", "sq1 sk700 tk900 seqused=k"})
    for (const char* more :
         {"", " causal", " window=100,0", " deterministic", " sinks dsink dlse", " dout_strides=0,0,0,0"}) {
      const Problem problem = parse_problem("bwd b3 hq4 hk2 d128 bf16 " + std::string(shape) + more);
      EXPECT_EQ(plan(problem, h200()).kernel(), std::string(kRow) + "_varlen") << to_string(problem);
    }
  const BackwardPlan packed =
      plan_backward(kVarlen, parse_problem("bwd b8 hq4 hk2 sq1000 sk1000 tq5000 tk6000 d128 bf16 causal"), h200());
  EXPECT_EQ(packed.query_tiles, 5000 / 64 + 8 + 1);
  EXPECT_EQ(packed.capacity, 6000 / 128 + 8 + 1);
  EXPECT_EQ(packed.schedule.items, packed.capacity * 2);
  EXPECT_GE(packed.workspace.bytes, packed.workspace.tiles + packed.capacity * sizeof(WorkTile));
  const BackwardPlan none =
      plan_backward(kVarlen, parse_problem("bwd b3 hq4 hk2 sq100 sk1 tq200 tk0 d128 bf16"), h200());
  EXPECT_EQ(none.schedule.items, 0) << "there is no key to write a gradient of";
}

TEST(Sm90BackwardPlan, ScoresAreChangedByRowsOfTheirOwn) {
  for (const char* words :
       {"softcap=30", "alibi", "alibi=batch causal", "softcap=5 alibi seqused=qk", "softcap=1 deterministic"})
    for (const char* dtype : {"bf16", "fp16"})
      for (const int d : {64, 128, 256}) {
        const Problem problem =
            parse_problem("bwd b2 hq4 hk2 sq700 sk700 d" + std::to_string(d) + " " + dtype + " " + words);
        EXPECT_EQ(plan(problem, h200()).kernel(),
                  "sm90_backward_" + std::string(dtype) + "_d" + std::to_string(d) + "_band_modified_varlen")
            << to_string(problem);
      }
}

TEST(Sm90BackwardPlan, HeadDimsThatLeaveSlicesEmpty) {
  const auto row = [](const char* dims) {
    return fattn::plan(parse_problem("bwd b3 hq4 hk2 sq300 sk300 tq700 tk700 bf16 " + std::string(dims)), h200())
        .kernel();
  };
  EXPECT_EQ(row("d40"), "sm90_backward_bf16_d64_band_varlen");
  EXPECT_EQ(row("d64 dv128"), "sm90_backward_bf16_d128_band_varlen");
  EXPECT_EQ(row("d136"), "sm90_backward_bf16_d192_band_modified_varlen");
  EXPECT_EQ(row("d192 dv128"), "sm90_backward_bf16_d192_band_modified_varlen");
  EXPECT_EQ(row("d8 dv256"), "sm90_backward_bf16_d256_band_varlen");
}

TEST(Sm90BackwardPlan, HeadDimsBetweenTakeTheNextTile) {
  const auto row = [](const char* dims) {
    return fattn::plan(parse_problem("bwd hq2 sq300 bf16 " + std::string(dims)), h200()).kernel();
  };
  EXPECT_EQ(row("d8"), "sm90_backward_bf16_d64_band");
  EXPECT_EQ(row("d72"), "sm90_backward_bf16_d128_band");
  EXPECT_EQ(row("d72 dv128"), "sm90_backward_bf16_d128_band");
  EXPECT_EQ(row("d128 dv136"), "sm90_backward_bf16_d192_band");
  EXPECT_EQ(row("d256 dv200"), "sm90_backward_bf16_d256_band");
  EXPECT_EQ(row("d208"), "sm90_backward_bf16_d256_band");
}

}  // namespace
}  // namespace fattn::gpu::sm90
