// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "fattn/fattn.h"

namespace {

// The layout is the ABI: fields are only added at the end, and there is no padding that could hold anything.
static_assert(sizeof(fattn_strides) == 32);
static_assert(offsetof(fattn_problem, batch) == 24);
static_assert(offsetof(fattn_problem, strides) == 136);
static_assert(offsetof(fattn_problem, softmax_scale) == 464);
static_assert(offsetof(fattn_problem, page_size) == 576);
static_assert(sizeof(fattn_problem) == 616);
static_assert(sizeof(fattn_device) == 152);
static_assert(sizeof(fattn_buffers) == 39 * 8);
static_assert(sizeof(fattn_traffic) == 40);

const char* const kTexts[] = {
    ("fwd b2 hq4 hk2 sq8 sk9 d64 dv32 tq16 tk18 seqused=qk fp16 out=fp64 causal causal_top_left window=3,-1 chunk=4 "
     "documents prefix block_sparse=64,128,batch,heads scale=0.125 softcap=30 bias=bhqk,bf16 alibi=batch sinks "
     "dropout=0.1 lse max_logit deterministic batch_invariant align=128 q_strides=4608,576,64,1 k_strides=1,2,3,1 "
     "v_strides=4,5,6,1 o_strides=4608,576,64,1"),
    ("bwd b2 hq4 hk2 sq8 sk9 d64 bf16 bias=1 alibi sinks dlse dbias dsink dout_strides=0,0,0,0 "
     "dq_strides=2048,256,64,1 dk_strides=1152,128,64,1 dv_strides=1152,128,64,1"),
    "fwd b1 hq1 hk1 sq8 sk8 d64 e4m3 out=bf16 descale=block,128,64",
    "decode b2 hq4 hk2 sq1 sk4096 d128 bf16 paged=64,200 append=1 leftpad rotary=64,interleaved",
    "decode b2 hq4 hk2 sq1 sk4096 d128 bf16 cache",
};

std::string text_of(const fattn_problem& problem) {
  char text[1024] = "";
  EXPECT_EQ(fattn_problem_to_text(&problem, text, sizeof text, nullptr), FATTN_OK) << fattn_last_error();
  return text;
}

TEST(CStructs, EveryFieldGoesThereAndBack) {
  for (const char* text : kTexts) {
    fattn_problem problem;
    ASSERT_EQ(fattn_problem_from_text(text, &problem, sizeof problem), FATTN_OK) << fattn_last_error();
    EXPECT_EQ(text_of(problem), text);
    EXPECT_EQ(fattn_problem_validate(&problem), FATTN_OK);
  }
}

TEST(CStructs, InitGivesTheDefaults) {
  fattn_problem problem;
  std::memset(&problem, 0xab, sizeof problem);
  ASSERT_EQ(fattn_problem_init(&problem, sizeof problem), FATTN_OK);
  EXPECT_EQ(text_of(problem), "fwd b1 hq1 hk1 sq1 sk1 d64 bf16");
}

TEST(CStructs, OlderSmallerStructIsCompleted) {
  fattn_problem problem;
  ASSERT_EQ(fattn_problem_from_text("fwd b2 hq4 hk2 sq8 sk9 d64 fp16", &problem, sizeof problem), FATTN_OK);
  // A header that ended before `alignment`: what is behind is not looked at.
  problem.struct_size = offsetof(fattn_problem, alignment);
  std::memset(&problem.alignment, 0xab, sizeof problem - offsetof(fattn_problem, alignment));
  EXPECT_EQ(text_of(problem), "fwd b2 hq4 hk2 sq8 sk9 d64 fp16");

  // And it is never written past its end.
  std::memset(&problem, 0xab, sizeof problem);
  const std::size_t size = offsetof(fattn_problem, causal);
  ASSERT_EQ(fattn_problem_from_text("fwd b2 hq4 hk2 sq8 sk9 d64 fp16", &problem, size), FATTN_OK);
  EXPECT_EQ(problem.struct_size, size);
  EXPECT_EQ(problem.causal, static_cast<int32_t>(0xabababab));
  EXPECT_EQ(text_of(problem), "fwd b2 hq4 hk2 sq8 sk9 d64 fp16");
  // Options that do not fit are refused, not dropped.
  EXPECT_EQ(fattn_problem_from_text("fwd sq8 d64 causal", &problem, size), FATTN_INVALID_ARGUMENT);
  EXPECT_NE(std::string(fattn_last_error()).find("no room"), std::string::npos) << fattn_last_error();
}

TEST(CStructs, NewerLargerStructIsAcceptedWhileItsTailIsZero) {
  struct {
    fattn_problem problem;
    int64_t tail[4];
  } newer = {};
  ASSERT_EQ(fattn_problem_from_text("fwd sq8 d64", &newer.problem, sizeof newer), FATTN_OK) << fattn_last_error();
  EXPECT_EQ(newer.problem.struct_size, sizeof newer);
  EXPECT_EQ(fattn_problem_validate(&newer.problem), FATTN_OK) << fattn_last_error();
  newer.tail[3] = 1;
  EXPECT_EQ(fattn_problem_validate(&newer.problem), FATTN_INVALID_ARGUMENT);
  EXPECT_NE(std::string(fattn_last_error()).find("does not know"), std::string::npos) << fattn_last_error();
}

TEST(CStructs, SizesThatAreNoneAreRefused) {
  fattn_problem problem;
  ASSERT_EQ(fattn_problem_init(&problem, sizeof problem), FATTN_OK);
  for (const std::size_t size : {std::size_t{0}, std::size_t{4}, std::size_t{12}, std::size_t{70000}, SIZE_MAX}) {
    problem.struct_size = size;
    EXPECT_EQ(fattn_problem_validate(&problem), FATTN_INVALID_ARGUMENT) << size;
    EXPECT_EQ(fattn_problem_init(&problem, size), FATTN_INVALID_ARGUMENT) << size;
  }
}

TEST(CStructs, UninitialisedFieldsAreRefused) {
  const auto refused = [](void (*change)(fattn_problem&), const char* part) {
    fattn_problem problem;
    ASSERT_EQ(fattn_problem_from_text("fwd sq8 d64 bias=hk", &problem, sizeof problem), FATTN_OK);
    change(problem);
    EXPECT_EQ(fattn_problem_validate(&problem), FATTN_INVALID_ARGUMENT) << part;
    EXPECT_NE(std::string(fattn_last_error()).find(part), std::string::npos) << fattn_last_error();
  };
  refused([](fattn_problem& p) { p.causal = 7; }, "causal = 7 must be 0 or 1");
  refused([](fattn_problem& p) { p.has_bias = -1; }, "has_bias = -1");
  refused([](fattn_problem& p) { p.has_strides[2] = 2; }, "has_strides = 2");
  refused([](fattn_problem& p) { p.pass = 3; }, "pass = 3");
  refused([](fattn_problem& p) { p.pass = 256; }, "pass = 256");
  refused([](fattn_problem& p) { p.dtype = -1; }, "dtype = -1");
  refused([](fattn_problem& p) { p.out_dtype = -2; }, "out_dtype = -2");
  refused([](fattn_problem& p) { p.bias_dtype = 9; }, "bias.dtype");
  refused([](fattn_problem& p) { p.total_q = -2; }, "total_q = -2");
  refused([](fattn_problem& p) { p.reserved = 1; }, "reserved = 1");
}

TEST(CStructs, DevicesGoThereAndBack) {
  fattn_device device;
  ASSERT_EQ(fattn_device_from_text("h100", &device, sizeof device), FATTN_OK);
  EXPECT_STREQ(device.name, "NVIDIA H100 SXM5");
  EXPECT_EQ(device.kind, FATTN_CUDA);
  EXPECT_EQ(device.index, -1);
  EXPECT_EQ(device.compute_capability, 90);
  ASSERT_EQ(fattn_device_from_text("cpu:3", &device, sizeof device), FATTN_OK);
  EXPECT_EQ(device.threads, 3);
  fattn_problem problem;
  ASSERT_EQ(fattn_problem_from_text("fwd sq8 d64", &problem, sizeof problem), FATTN_OK);
  fattn_plan* plan = nullptr;
  std::memset(device.name, 'x', sizeof device.name);  // a name without its final zero
  EXPECT_EQ(fattn_plan_create(&problem, &device, "reference_forward_fp64", &plan), FATTN_OK) << fattn_last_error();
  EXPECT_EQ(fattn_plan_destroy(plan), FATTN_OK);
  device.kind = 2;
  EXPECT_EQ(fattn_plan_create(&problem, &device, nullptr, &plan), FATTN_INVALID_ARGUMENT);
}

}  // namespace
