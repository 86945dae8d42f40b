// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "cuda/common/work_list.hpp"
#include "cuda/sm90/forward_varlen_plan.hpp"
#include "fattn/fattn.hpp"
#include "verify/random.hpp"

// The host's half of the sm90 forward rows for sequences of any length. No GPU is needed.
namespace fattn::gpu::sm90 {
namespace {

const ForwardRow kRow{DType::bf16, varlen_tile(forward_tile(DType::bf16, 128, 128), true), 0, true, true};

VarlenPlan plan_of(const char* text) { return plan_varlen(kRow, parse_problem(text), h200()); }

// The splits of an item walk its tiles once, in order, and each knows by itself which of them are plain.
TEST(Sm90Walk, SplitsShareTheTiles) {
  verify::Random random(5);
  for (int round = 0; round < 400; ++round) {
    const int seqlen_q = static_cast<int>(random.between(1, 300)), seqlen_k = static_cast<int>(random.between(0, 900));
    BandLimits limits;
    if (random.between(0, 1)) limits.left = static_cast<int>(random.between(0, 400));
    if (random.between(0, 1)) limits.right = static_cast<int>(random.between(0, 100));
    const Band band = Band::of(limits, seqlen_q, seqlen_k);
    const int n = 16 * static_cast<int>(random.between(1, 8)), splits = static_cast<int>(random.between(1, 9));
    const int begin = static_cast<int>(random.between(0, seqlen_q - 1)), end = std::min(begin + 64, seqlen_q);
    const TileWalk whole = walk_tiles(band, begin, end, n);
    int next = whole.end;
    for (int index = 0; index < splits; ++index) {
      const TileWalk part = walk_tiles(band, begin, end, n, {index, splits});
      if (part.sees_nothing()) continue;
      ASSERT_EQ(part.end, next) << "splits follow each other from the last keys to the first";
      next = part.begin;
      for (int query = begin; query < end && part.plain_begin < part.plain_end; ++query) {
        const Interval keys = band.visible(query);
        ASSERT_LE(keys.begin, part.plain_begin * n);
        ASSERT_GT(std::min(keys.end, part.end * n), part.plain_end * n) << "a row has met no key in this part";
      }
      for (int query = begin; query < end && !part.first_masked; ++query) {
        const Interval keys = band.visible(query);
        ASSERT_TRUE(keys.begin <= (part.end - 1) * n && keys.end >= part.end * n);
      }
    }
    ASSERT_EQ(next, whole.sees_nothing() ? whole.end : whole.begin);
  }
}

TEST(Sm90Varlen, LengthsStayInsideTheBuffers) {
  const std::int32_t cu_seqlens[] = {5, -3, 90, 40, 1000}, seqused[] = {7, -1, 1000, 3};
  const SideLengths side{cu_seqlens, seqused, 100, 60};
  for (int index = 0; index < 4; ++index) {
    const SequenceRows rows = sequence_rows(side, index);
    EXPECT_EQ(rows.batch, 0);
    EXPECT_GE(rows.begin, 0);
    EXPECT_GE(rows.rows, 0);
    EXPECT_LE(rows.begin + rows.rows, 100);
    EXPECT_GE(rows.used, 0);
    EXPECT_LE(rows.used, std::min(rows.rows, 60));
  }
  const std::int32_t short_lengths[] = {0, 30, 80};
  const SequenceRows rest = rows_behind({short_lengths, nullptr, 100, 60}, 2);
  EXPECT_EQ(rest.begin, 80);
  EXPECT_EQ(rest.rows, 20);
  EXPECT_EQ(rest.used, 0);
  const SequenceRows dense = sequence_rows({nullptr, seqused, 0, 60}, 2);
  EXPECT_EQ(dense.batch, 2);
  EXPECT_EQ(dense.begin, 0);
  EXPECT_EQ(dense.used, 60);
}

TEST(Sm90Varlen, ListsFitWhateverTheLengths) {
  verify::Random random(6);
  for (int round = 0; round < 100; ++round) {
    const int batch = static_cast<int>(random.between(1, 20)), group = 1 << random.between(0, 4);
    std::vector<std::int32_t> cu_seqlens{0};
    for (int i = 0; i < batch; ++i) cu_seqlens.push_back(cu_seqlens.back() + static_cast<int>(random.between(0, 700)));
    const int total = cu_seqlens.back() + static_cast<int>(random.between(0, 300));
    const VarlenLengths lengths{batch, {cu_seqlens.data(), nullptr, total, 700}, {nullptr, nullptr, 0, 700}};
    std::int64_t tiles = 0;
    for (int i = 0; i < lengths.sequences(); ++i) tiles += (lengths.queries(i).rows * group + 127) / 128;
    EXPECT_LE(tiles, work_list_capacity(lengths, group, 128));
  }
}

TEST(Sm90Varlen, FewRowsSplitTheKeysAndLieSideBySide) {
  const VarlenPlan decode = plan_of("fwd b1 hq32 hk4 sq1 sk32768 d128 bf16");
  EXPECT_EQ(decode.group, 8);
  EXPECT_EQ(decode.splits, 132 / 4);
  EXPECT_FALSE(decode.listed);
  EXPECT_GE(decode.workspace_bytes, static_cast<std::size_t>(decode.splits) * 32 * 129 * sizeof(float));
  const VarlenPlan shorter = plan_of("fwd b1 hq32 hk4 sq1 sk2048 d128 bf16");
  EXPECT_EQ(shorter.splits, 4) << "a split walks at least 512 keys";
  EXPECT_EQ(plan_of("fwd b64 hq32 hk4 sq1 sk32768 d128 bf16").splits, 1) << "the chip is full";
  EXPECT_EQ(plan_of("fwd b1 hq12 hk4 sq1 sk4096 d128 bf16").group, 1) << "3 heads do not divide 64 rows";
  EXPECT_EQ(plan_of("fwd b1 hq32 hk4 sq4096 sk4096 d128 bf16").group, 1) << "nothing to save";
}

TEST(Sm90Varlen, BatchInvariantPlansDependOnNothingElse) {
  for (const char* text : {"fwd b1 hq32 hk4 sq1 sk32768 d128 bf16 batch_invariant",
                           "fwd b64 hq32 hk4 sq1 sk32768 d128 bf16 batch_invariant"}) {
    EXPECT_EQ(plan_of(text).splits, 1);
    EXPECT_EQ(plan_of(text).group, 1);
  }
}

TEST(Sm90Varlen, WorkspaceHoldsTheList) {
  const VarlenPlan packed = plan_of("fwd b8 hq4 hk4 sq1000 sk1000 tq5000 tk5000 d128 bf16 causal");
  EXPECT_TRUE(packed.listed);
  EXPECT_EQ(packed.capacity, 5000 / 128 + 8 + 1);
  EXPECT_GE(packed.workspace_bytes, packed.tiles_at + packed.capacity * sizeof(PlacedTile));
  EXPECT_EQ(packed.splits, 1);
}

TEST(Sm90Varlen, HeadsAreTakenInSectionsThatFitTheCache) {
  const auto heads = [](const char* text) { return plan_varlen(kRow, parse_problem(text), h200()).section_heads; };
  EXPECT_EQ(heads("fwd b12 hq16 hk16 sq4096 sk4096 d128 tq16384 tk16384 bf16"), 4);
  EXPECT_EQ(heads("fwd b16 hq16 hk16 sq1024 sk1024 d128 tq16384 tk16384 bf16"), 2);  // of one length
  EXPECT_EQ(heads("fwd b64 hq16 hk16 sq1024 sk1024 d128 tq65536 tk65536 bf16"), 1);
  EXPECT_EQ(heads("fwd b64 hq16 hk4 sq1024 sk1024 d128 tq65536 tk65536 bf16"), 4);  // those that share keys
  EXPECT_EQ(heads("fwd b2 hq16 hk16 sq500 sk500 d128 tq900 tk900 bf16"), 16);
  EXPECT_EQ(heads("fwd b1 hq16 hk16 sq100 sk0 d128 tq100 tk0 bf16"), 16);
}

TEST(Sm90Varlen, TheRowsTakeWhatTheDenseOneDeclines) {
  const auto row = [](const std::string& words) {
    return std::string(plan(parse_problem("fwd b2 hq4 hk2 sq700 sk700 d128 bf16 " + words), h200()).kernel());
  };
  for (const char* words : {"softcap=30", "alibi", "alibi=batch causal", "max_logit", "seqused=qk max_logit"})
    EXPECT_EQ(row(words), "sm90_forward_bf16_d128_band_modified_varlen") << words;
  for (const char* words : {"seqused=qk", "seqused=k causal", "tq900 tk900", "tq900 tk900 sinks"})
    EXPECT_EQ(row(words), "sm90_forward_bf16_d128_band_varlen") << words;
}

}  // namespace
}  // namespace fattn::gpu::sm90
