// SPDX-License-Identifier: Apache-2.0
#include "core/expect_error.hpp"
#include "core/problem_words.hpp"

namespace fattn {
namespace {

std::string canonical(std::string_view text) { return to_string(parse_problem(text)); }

TEST(ProblemText, DefaultsAndOrder) {
  EXPECT_EQ(canonical("fwd sq128 d64"), "fwd b1 hq1 hk1 sq128 sk128 d64 bf16");
  EXPECT_EQ(canonical("bwd causal fp32 d64 hq8 sq128"), "bwd b1 hq8 hk8 sq128 sk128 d64 fp32 causal");
  EXPECT_EQ(canonical("fwd b4 hq32 hk8 sq4096 sk4096 d128 bf16 causal window=1024,0"),
            "fwd b4 hq32 hk8 sq4096 sk4096 d128 bf16 causal window=1024,0");
  EXPECT_EQ(canonical("  fwd\tb=4  sq=0128\n d64 align=16 softcap=0 window=-1,-1 dv0 chunk=0 dropout=0 "),
            "fwd b4 hq1 hk1 sq128 sk128 d64 bf16");
}

TEST(ProblemText, EveryWord) {
  for (const char* text :
       {"fwd b2 hq4 hk2 sq8 sk9 d64 dv32 tq16 tk18 seqused=qk fp16 out=fp64 causal causal_top_left window=3,-1 chunk=4 "
        "documents prefix block_sparse=64,128,batch,heads scale=0.125 softcap=30 bias=bhqk,bf16 alibi=batch sinks "
        "dropout=0.1 lse max_logit deterministic batch_invariant align=128 q_strides=4608,576,64,1 "
        "o_strides=4608,576,64,1",
        "bwd b2 hq4 hk2 sq8 sk9 d64 bf16 bias=1 alibi sinks dlse dbias dsink dout_strides=0,0,0,0",
        "fwd b1 hq1 hk1 sq8 sk8 d64 e4m3 out=bf16 descale=block,128,64",
        "fwd b1 hq1 hk1 sq8 sk8 d64 e4m3 descale=tensor", "fwd b1 hq1 hk1 sq8 sk8 d64 e4m3 descale=head",
        "fwd b1 hq1 hk1 sq8 sk8 d64 seqused=q bf16", "fwd b1 hq1 hk1 sq8 sk8 d64 seqused=k bf16 bias=hk",
        "decode b2 hq4 hk2 sq1 sk4096 d128 bf16 paged=64,200 append=1 leftpad rotary=64,interleaved",
        "decode b2 hq4 hk2 sq1 sk4096 d128 bf16 cache", "decode b2 hq4 hk2 sq1 sk4096 d128 bf16",
        "decode b1 hq1 hk1 sq1 sk64 d128 bf16 rotary=64"}) {
    EXPECT_EQ(canonical(text), text);
  }
}

TEST(ProblemText, ReadsIntoTheRightFields) {
  const Problem p = parse_problem(
      "bwd b2 hq4 hk2 sq8 sk9 d64 dv32 tq16 seqused=k fp16 out=fp32 window=3,-1 bias=bk alibi scale=0.5 dlse "
      "dq_strides=1,2048,64,1");
  Problem expected{.pass = Pass::backward,
                   .dtype = DType::fp16,
                   .out_dtype = DType::fp32,
                   .batch = 2,
                   .heads_q = 4,
                   .heads_kv = 2,
                   .seqlen_q = 8,
                   .seqlen_k = 9,
                   .head_dim = 64,
                   .head_dim_v = 32,
                   .total_q = 16};
  expected.seqused_k = true;
  expected.softmax_scale = 0.5;
  expected.mask.window_left = 3;
  expected.score.bias = Bias{.batch = true, .keys = true};
  expected.score.alibi = Alibi::per_head;
  expected.dlse = true;
  expected.strides.dq = Strides{1, 2048, 64, 1};
  EXPECT_EQ(p, expected);
}

TEST(ProblemText, UnknownWordsNameTheNearest) {
  const auto bad = [](const char* text, std::vector<std::string> parts) {
    parts.emplace_back("nearest: ");
    expect_error(Status::invalid_argument, parts, [&] { parse_problem(text); });
  };
  bad("", {"problem is empty"});
  bad(" \n ", {"problem is empty"});
  bad("forward sq8 d64", {"'forward'", "fwd"});
  bad("b4 fwd sq8 d64", {"begins with 'b4'"});
  bad("fwd sq8 d64 casual", {"'casual'", "nearest: causal"});
  bad("fwd sq8 d64 bf61", {"'bf61'", "nearest: bf16"});
  bad("fwd sq8 d64 windo=3,4", {"'windo=3,4'", "nearest: window"});
  bad("fwd sq8 d64 Causal", {"'Causal'", "nearest: causal"});
  bad("fwd sq8 d64 hz8", {"'hz8'"});
  bad("fwd sq8 d64 dtype", {"'dtype'"});
  bad("fwd sq8 d64 dtype=bf16", {"'dtype=bf16'"});
  bad("fwd sq8 d64 fwd", {"'fwd'"});
  bad("fwd sq8 d64 \x01.\xff", {"'?.?'"});
  bad("fwd d64", {"problem has no sq"});
  bad("fwd sq8", {"problem has no d"});
}

TEST(ProblemText, MalformedValues) {
  for (const char* word : {"b",
                           "b-",
                           "b4x",
                           "b4.5",
                           "b+4",
                           "b0x4",
                           "hq=",
                           "window",
                           "window=",
                           "window=3",
                           "window=3,",
                           "window=3,4,5",
                           "window=,",
                           "window=a,b",
                           "causal=1",
                           "causal=",
                           "chunk",
                           "chunk=1e3",
                           "scale=",
                           "scale=abc",
                           "scale=0x1p3",
                           "scale=1,2",
                           "scale=1e999",
                           "bias=",
                           "bias=x",
                           "bias=bb",
                           "bias=bhqk,",
                           "bias=bhqk,int8",
                           "bias=1,1",
                           "alibi=",
                           "alibi=heads",
                           "descale=block",
                           "descale=block,1",
                           "descale=row",
                           "descale=none",
                           "seqused=",
                           "seqused=kq",
                           "block_sparse=64",
                           "block_sparse=64,64,heads,heads",
                           "block_sparse=64,64,rows",
                           "out=int8",
                           "out=",
                           "align=",
                           "q_strides=1,2,3",
                           "q_strides=1,2,3,1,5",
                           "paged=16",
                           "rotary=64,foo",
                           "rotary=,interleaved",
                           "sq99999999999999999999",
                           "b-99999999999999999999"}) {
    expect_error(Status::invalid_argument, {"word '", "nearest: "},
                 [&] { parse_problem(std::string("decode sq8 d64 ") + word); });
  }
}

TEST(ProblemText, TwiceIsRefused) {
  for (const char* text : {"fwd sq8 d64 b1 b1", "fwd sq8 d64 sq8", "fwd sq8 d64 bf16 fp16", "fwd sq8 d64 causal causal",
                           "fwd sq8 d64 seqused=q seqused=k", "fwd sq8 d64 window=1,1 window=1,1"}) {
    expect_error(Status::invalid_argument, {"a second time"}, [&] { parse_problem(text); });
  }
}

TEST(ProblemText, ParsingValidates) {
  expect_error(Status::invalid_argument, {"heads_kv = 5 must divide heads_q = 32; nearest: 4"},
               [] { parse_problem("fwd hq32 hk5 sq8 d64"); });
  expect_error(Status::invalid_argument, {"softmax_scale = nan"}, [] { parse_problem("fwd sq8 d64 scale=nan"); });
  expect_error(Status::invalid_argument, {"dropout = inf"}, [] { parse_problem("fwd sq8 d64 dropout=inf"); });
  expect_error(Status::invalid_argument, {"batch = -4"}, [] { parse_problem("fwd sq8 d64 b-4"); });
}

TEST(ProblemText, HostileInputIsRefusedInTime) {
  std::string many = "fwd sq8 d64";
  for (int i = 0; i < 100000; ++i) many += " b1";
  EXPECT_THROW(parse_problem(many), Error);
  expect_error(Status::invalid_argument, {"..."}, [] { parse_problem("fwd sq8 d64 " + std::string(1 << 20, 'a')); });
  EXPECT_THROW(parse_problem(std::string("fwd\0sq8", 7)), Error);
}

TEST(ProblemText, EqualProblemsHaveEqualTexts) {
  EXPECT_EQ(canonical("fwd sq8 d64 scale=-0 softcap=-0"), "fwd b1 hq1 hk1 sq8 sk8 d64 bf16 scale=0");
}

TEST(ProblemText, PrintsInvalidProblemsToo) {
  Problem p{.pass = static_cast<Pass>(9), .dtype = static_cast<DType>(9)};
  p.descale.kind = static_cast<DescaleKind>(9);
  EXPECT_EQ(to_string(p), "unknown b1 hq1 hk1 sq1 sk1 d64 unknown descale=unknown");
}

TEST(ProblemText, NoWordIsThePrefixOfAnothersNumber) {
  // "d64" must never be read as "dv", and so on: names are letters only and each is its own.
  for (const Word& a : words()) {
    EXPECT_EQ(a.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), a.name.npos) << a.name;
    for (const Word& b : words()) EXPECT_TRUE(&a == &b || a.name != b.name) << a.name;
  }
}

}  // namespace
}  // namespace fattn
