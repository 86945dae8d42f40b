// SPDX-License-Identifier: Apache-2.0
#include "verify/case_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fattn/error.hpp"
#include "verify/case_line.hpp"

namespace fattn::verify {
namespace {

CaseData draw(const std::string& line) {
  const Case one = parse_case(line);
  return CaseData(one.problem, cpu(1), one.data);
}

std::vector<bool> known(const Tensor& tensor) {
  std::vector<bool> all;
  for (const double x : tensor.values()) all.push_back(!std::isnan(x));
  return all;
}

TEST(CaseData, SeedsAndNothingElseDecide) {
  const std::string line = "fwd b2 hq2 hk1 sq5 sk6 d4 fp32 | seed=";
  EXPECT_EQ(draw(line + "3").tensor("q").values(), draw(line + "3").tensor("q").values());
  EXPECT_NE(draw(line + "3").tensor("q").values(), draw(line + "4").tensor("q").values());
  // Neither the mask, nor another tensor, nor a layout changes what q holds.
  EXPECT_EQ(
      draw(line + "3").tensor("q").values(),
      draw("fwd b2 hq2 hk1 sq5 sk6 d4 fp32 causal sinks bias=1 q_strides=100,20,8,1 | seed=3").tensor("q").values());
}

TEST(CaseData, NumbersAreNormal) {
  const std::vector<double> q = draw("fwd b2 hq8 hk8 sq64 sk64 d64 fp32").tensor("q").values();
  double sum = 0, squares = 0, fourth = 0;
  for (const double x : q) sum += x, squares += x * x, fourth += x * x * x * x;
  const double count = static_cast<double>(q.size());
  EXPECT_NEAR(sum / count, 0, 0.02);
  EXPECT_NEAR(squares / count, 1, 0.03);
  EXPECT_NEAR(fourth / count, 3, 0.2);
}

TEST(CaseData, WhatNoOneMayReadIsNaN) {
  // Bottom right with window 0 to the left and no more: query i sees key i + 1 only, of 4 keys.
  EXPECT_EQ(known(draw("fwd b1 hq1 hk1 sq2 sk4 d1 fp32 window=0,0").tensor("k")),
            (std::vector<bool>{false, false, true, true}));
  EXPECT_EQ(known(draw("fwd b1 hq1 hk1 sq2 sk4 d1 fp32 causal_top_left").tensor("v")),
            (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(known(draw("fwd b2 hq1 hk1 sq2 sk2 d1 fp32 seqused=qk | used_q=1,0 used_k=2,1").tensor("q")),
            (std::vector<bool>{true, false, false, false}));
  // Keys of a sequence without queries are seen by no one.
  EXPECT_EQ(known(draw("fwd b2 hq1 hk1 sq2 sk2 d1 fp32 seqused=qk | used_q=1,0 used_k=2,1").tensor("k")),
            (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(known(draw("fwd b2 hq1 hk1 sq3 sk3 d1 tq5 tk5 fp32 | lengths_q=1,2 lengths_k=2,2").tensor("k")),
            (std::vector<bool>{true, true, true, true, false}));
  EXPECT_EQ(known(draw("fwd b2 hq1 hk1 sq2 sk3 d1 seqused=qk fp32 bias=bqk | used_q=1,2 used_k=2,3").tensor("bias")),
            (std::vector<bool>{true, true, false, false, false, false, true, true, true, true, true, true}));
}

// Tables and ids in every shape that kernels must tell apart, and NaN exactly where their masks keep no pair.
TEST(CaseData, DrawsMasksThatAreReadFromData) {
  int any_order = 0, absent_rows = 0, partial = 0, full = 0, hidden = 0, none = 0, all = 0;
  for (int seed = 1; seed <= 40; ++seed) {
    const std::string end = " | seed=" + std::to_string(seed);
    const CaseData documents = draw("fwd b2 hq1 hk1 sq20 sk30 d2 bf16 documents" + end);
    const std::int32_t* const ids = documents.masters().document_k;
    any_order += std::is_sorted(ids, ids + 30) ? 0 : 1;
    const CaseData blocks = draw("fwd b2 hq2 hk1 sq20 sk30 d2 bf16 block_sparse=4,8,batch,heads" + end);
    const Buffers b = blocks.masters();
    for (int row = 0; row < 4 * 6; ++row) {
      if (row % 6 == 5) continue;  // from the end of a table to the next
      absent_rows += b.block_offsets[row] == b.block_offsets[row + 1] ? 1 : 0;
      for (int entry = b.block_offsets[row]; entry < b.block_offsets[row + 1]; ++entry) {
        (b.block_bits[entry] < 0 ? full : partial) += 1;
        if (entry > b.block_offsets[row]) {
          EXPECT_LT(b.block_columns[entry - 1], b.block_columns[entry]);
        }
      }
    }
    for (const bool value : known(blocks.tensor("k"))) hidden += value ? 0 : 1;
    const CaseData prefixes = draw("fwd b2 hq1 hk1 sq20 sk30 d2 bf16 prefix" + end);
    none += prefixes.masters().prefix[0] <= 0 ? 1 : 0;
    all += prefixes.masters().prefix[0] >= 30 ? 1 : 0;
  }
  for (const int count : {any_order, absent_rows, partial, full, hidden, none, all}) EXPECT_GT(count, 2);

  CaseData data = draw("fwd b1 hq1 hk1 sq2 sk3 d1 fp32 documents");
  EXPECT_EQ(data.array("document_q").size(), 8u);
  EXPECT_THROW(data.set_array("prefix", std::vector<std::int32_t>{1}), Error);
  EXPECT_EQ(draw("fwd b1 hq2 hk1 sq4 sk4 d1 fp32 causal").kept_pairs(0), 20);
  const CaseData dense = draw("fwd b1 hq2 hk1 sq40 sk40 d1 fp32 block_sparse=5,5"), alone = draw("fwd hq2 sq40 d1");
  EXPECT_GT(dense.kept_pairs(0), 0);
  EXPECT_LT(dense.kept_pairs(0), alone.kept_pairs(0));
}

TEST(CaseData, DrawnLengthsFit) {
  int empty = 0, left_over = 0, longest = 0;
  for (int seed = 1; seed <= 200; ++seed) {
    const CaseData data = draw("fwd b5 hq1 hk1 sq40 sk50 d2 tq90 tk250 seqused=k bf16 | seed=" + std::to_string(seed));
    std::int64_t queries = 0;
    for (std::int64_t b = 0; b < 5; ++b) {
      ASSERT_GE(data.length_q(b), 0);
      ASSERT_LE(data.length_q(b), 40);
      ASSERT_GE(data.length_k(b), 0);
      ASSERT_LE(data.length_k(b), 50);
      queries += data.length_q(b);
      empty += data.length_q(b) == 0 ? 1 : 0;
      longest += data.length_q(b) == 40 ? 1 : 0;
    }
    ASSERT_LE(queries, 90);
    left_over += queries < 90 ? 1 : 0;
  }
  EXPECT_GT(empty, 50);
  EXPECT_GT(left_over, 20);
  EXPECT_GT(longest, 20);
}

TEST(CaseData, RefusesLengthsThatDoNotFit) {
  for (const char* options : {"lengths_q=3,0", "lengths_q=2,2", "lengths_q=1", "lengths_q=-1,2"}) {
    EXPECT_THROW(draw(std::string("fwd b2 hq1 hk1 sq2 sk2 d2 tq3 bf16 | ") + options), Error) << options;
  }
  EXPECT_THROW(draw("fwd b1 hq1 hk1 sq2 sk2 d2 bf16").tensor("dout"), Error);
}

TEST(CaseData, SeesInputsThatWereWritten) {
  CaseData data = draw("fwd b2 hq1 hk1 sq2 sk2 d2 tq3 tk4 fp32 sinks");
  data.place();
  EXPECT_EQ(data.damage(), "");
  const Buffers buffers = data.placed();
  float* const sinks = const_cast<float*>(buffers.sinks);
  const float before = *sinks;
  *sinks = before + 1;
  EXPECT_NE(data.damage().find("sinks"), std::string::npos);
  *sinks = before;
  const_cast<std::int32_t*>(buffers.cu_seqlens_q)[3] = 0;  // one past the end
  EXPECT_NE(data.damage().find("queries"), std::string::npos);
}

TEST(CaseOutputs, SeeWhatWasWrittenBesideThem) {
  const Problem problem = parse_problem("fwd b1 hq1 hk1 sq3 sk3 d2 fp32 lse o_strides=12,4,2,1");
  CaseOutputs outputs(problem, cpu(1));
  Buffers buffers;
  outputs.attach(buffers);
  outputs.fetch();
  EXPECT_EQ(outputs.damage(), "");
  for (const double x : outputs.tensor("o").values()) EXPECT_TRUE(std::isnan(x));
  static_cast<float*>(buffers.o)[3] = 0;
  outputs.fetch();
  EXPECT_NE(outputs.damage().find("gaps between the rows of o"), std::string::npos);
  buffers.lse[3] = 0;
  EXPECT_NE(outputs.damage().find("memory around lse"), std::string::npos);
}

}  // namespace
}  // namespace fattn::verify
