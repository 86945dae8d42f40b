// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "core/expect_error.hpp"
#include "fattn/problem.hpp"

namespace fattn {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Problem valid(Pass pass = Pass::forward) {
  return {.pass = pass, .batch = 2, .heads_q = 32, .heads_kv = 8, .seqlen_q = 100, .seqlen_k = 200, .head_dim = 128};
}

// One wrong thing in a valid problem, and what the message must say.
struct Wrong {
  std::vector<std::string> message;
  void (*change)(Problem&);
  Pass pass = Pass::forward;
  friend void PrintTo(const Wrong& wrong, std::ostream* os) { *os << wrong.message.front(); }
};

class ValidateRule : public testing::TestWithParam<Wrong> {};

TEST_P(ValidateRule, NamesArgumentValueAndNearest) {
  Problem problem = valid(GetParam().pass);
  ASSERT_NO_THROW(validate(problem));
  GetParam().change(problem);
  std::vector<std::string> parts = GetParam().message;
  parts.emplace_back("nearest: ");
  expect_error(Status::invalid_argument, parts, [&] { validate(problem); });
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ValidateRule,
    testing::Values(
        Wrong{{"pass = 7"}, [](Problem& p) { p.pass = static_cast<Pass>(7); }},
        Wrong{{"dtype = 9"}, [](Problem& p) { p.dtype = static_cast<DType>(9); }},
        Wrong{{"batch = 0", "nearest: 1"}, [](Problem& p) { p.batch = 0; }},
        Wrong{{"batch = -3", "nearest: 1"}, [](Problem& p) { p.batch = -3; }},
        Wrong{{"batch = 4294967296", "nearest: 2147483647"}, [](Problem& p) { p.batch = 1ll << 32; }},
        Wrong{{"heads_q = 0"}, [](Problem& p) { p.heads_q = 0; }},
        Wrong{{"heads_kv = 0"}, [](Problem& p) { p.heads_kv = 0; }},
        Wrong{{"heads_kv = 5 must divide heads_q = 32", "nearest: 4"}, [](Problem& p) { p.heads_kv = 5; }},
        Wrong{{"heads_kv = 64 must divide heads_q = 32", "nearest: 32"}, [](Problem& p) { p.heads_kv = 64; }},
        Wrong{{"heads_kv = 1000000000", "nearest: 1"},
              [](Problem& p) { p.heads_q = 2147483647, p.heads_kv = 1000000000; }},  // a prime, quickly
        Wrong{{"seqlen_q = 0", "nearest: 1"}, [](Problem& p) { p.seqlen_q = 0; }},
        Wrong{{"seqlen_q = 1073741824", "nearest: 1073741823"}, [](Problem& p) { p.seqlen_q = 1 << 30; }},
        Wrong{{"seqlen_k = -1", "nearest: 0"}, [](Problem& p) { p.seqlen_k = -1; }},
        Wrong{{"seqlen_k = 1073741824", "nearest: 1073741823"}, [](Problem& p) { p.seqlen_k = 1 << 30; }},
        Wrong{{"head_dim = 0", "nearest: 1"}, [](Problem& p) { p.head_dim = 0; }},
        Wrong{{"head_dim = 577", "nearest: 576"}, [](Problem& p) { p.head_dim = 577; }},
        Wrong{{"head_dim_v", "576", "nearest: head_dim_v = 512"}, [](Problem& p) { p.head_dim = 576; }},
        Wrong{{"head_dim_v = 513", "nearest: 512"}, [](Problem& p) { p.head_dim_v = 513; }},
        Wrong{{"head_dim_v = -1", "nearest: 0"}, [](Problem& p) { p.head_dim_v = -1; }},
        Wrong{{"total_q = 0", "nearest: 1"}, [](Problem& p) { p.total_q = 0; }},
        Wrong{{"total_k = -1", "nearest: 0"}, [](Problem& p) { p.total_k = -1; }},
        Wrong{{"total_k = 2147483648", "nearest: 2147483647"}, [](Problem& p) { p.total_k = 1ll << 31; }},
        Wrong{{"out_dtype = fp16", "dtype = bf16", "nearest: bf16"}, [](Problem& p) { p.out_dtype = DType::fp16; }},
        Wrong{{"out_dtype = e4m3", "nearest: bf16"},
              [](Problem& p) { p.dtype = DType::e4m3, p.out_dtype = DType::e4m3; }},
        Wrong{{"out_dtype = 77"}, [](Problem& p) { p.out_dtype = static_cast<DType>(77); }},
        Wrong{{"q spans more than 2^56"}, [](Problem& p) { p.batch = 1 << 30, p.seqlen_q = 1 << 28; }}));

INSTANTIATE_TEST_SUITE_P(
    Layouts, ValidateRule,
    testing::Values(Wrong{{"strides.q.dim = 2", "nearest: 1"},
                          [](Problem& p) {
                            p.strides.q = {819200, 8192, 256, 2};
                          }},
                    Wrong{{"strides.q.dim = 0", "must be 1;"},
                          [](Problem& p) {
                            p.strides.q = {819200, 8192, 256, 0};
                          }},
                    Wrong{{"strides.dout.dim = 3", "1 or 0"},
                          [](Problem& p) {
                            p.strides.dout = {1, 1, 1, 3};
                          },
                          Pass::backward},
                    Wrong{{"strides.k.batch = -1", "nearest: 0"},
                          [](Problem& p) {
                            p.strides.k = {-1, 1024, 128, 1};
                          }},
                    Wrong{{"strides.k.seqlen = -1"},
                          [](Problem& p) {
                            p.strides.k = {1, -1, 128, 1};
                          }},
                    Wrong{{"strides.v.head = -128"},
                          [](Problem& p) {
                            p.strides.v = {1, 1, -128, 1};
                          }},
                    Wrong{{"strides.o.head = 127", "overlap", "nearest: 128"},
                          [](Problem& p) {
                            p.strides.o = {819200, 8192, 127, 1};
                          }},
                    Wrong{{"strides.o.head = 0", "overlap", "nearest: 1"},
                          [](Problem& p) {
                            p.strides.o = {819200, 8192, 0, 1};
                          }},
                    Wrong{{"strides.o.seqlen = 4000", "overlap"},
                          [](Problem& p) {
                            p.strides.o = {409600, 4000, 128, 1};
                          }},
                    Wrong{{"strides.dq.batch = 5", "overlap"},
                          [](Problem& p) {
                            p.strides.dq = {5, 4096, 128, 1};
                          },
                          Pass::backward},
                    Wrong{{"strides.dk.seqlen = 0", "overlap"},
                          [](Problem& p) {
                            p.strides.dk = {204800, 0, 128, 1};
                          },
                          Pass::backward},
                    Wrong{{"strides.dv.dim = 0"},
                          [](Problem& p) {
                            p.strides.dv = {204800, 1024, 128, 0};
                          },
                          Pass::backward},
                    Wrong{{"strides.dq belongs to the backward"},
                          [](Problem& p) {
                            p.strides.dq = {409600, 4096, 128, 1};
                          }},
                    Wrong{{"q spans"},
                          [](Problem& p) {
                            p.strides.q = {1ll << 62, 4096, 128, 1};
                          }},
                    Wrong{{"alignment = 0", "nearest: 2"}, [](Problem& p) { p.alignment = 0; }},
                    Wrong{{"alignment = -16", "nearest: 2"}, [](Problem& p) { p.alignment = -16; }},
                    Wrong{{"alignment = 1", "nearest: 2"}, [](Problem& p) { p.alignment = 1; }},
                    Wrong{{"alignment = 24", "nearest: 16"}, [](Problem& p) { p.alignment = 24; }},
                    Wrong{{"alignment = 4", "nearest: 8"},
                          [](Problem& p) { p.alignment = 4, p.out_dtype = DType::fp64; }},
                    Wrong{{"alignment = 8192", "nearest: 4096"}, [](Problem& p) { p.alignment = 8192; }}));

INSTANTIATE_TEST_SUITE_P(
    Scores, ValidateRule,
    testing::Values(Wrong{{"softmax_scale = nan"}, [](Problem& p) { p.softmax_scale = kNaN; }},
                    Wrong{{"softmax_scale = inf"}, [](Problem& p) { p.softmax_scale = kInf; }},
                    Wrong{{"softmax_scale = -inf"}, [](Problem& p) { p.softmax_scale = -kInf; }},
                    Wrong{{"softmax_scale = 1e+39"}, [](Problem& p) { p.softmax_scale = 1e39; }},
                    Wrong{{"softcap = -1", "nearest: 0"}, [](Problem& p) { p.score.softcap = -1; }},
                    Wrong{{"softcap = nan"}, [](Problem& p) { p.score.softcap = kNaN; }},
                    Wrong{{"softcap = inf"}, [](Problem& p) { p.score.softcap = kInf; }},
                    Wrong{{"softcap = 1e-50", "nearest: 0"}, [](Problem& p) { p.score.softcap = 1e-50; }},
                    Wrong{{"score.alibi = 3"}, [](Problem& p) { p.score.alibi = static_cast<Alibi>(3); }},
                    Wrong{{"bias.dtype = e4m3", "nearest: fp32"},
                          [](Problem& p) { p.score.bias = Bias{.dtype = DType::e4m3}; }},
                    Wrong{{"bias has more than 2^56"},
                          [](Problem& p) {
                            p.seqlen_q = p.seqlen_k = (1 << 30) - 1;
                            p.score.bias = Bias{true, true, true, true};
                          }},
                    Wrong{{"dropout = -0.1", "nearest: 0"}, [](Problem& p) { p.dropout = -0.1; }},
                    Wrong{{"dropout = 1 ", "nearest: 0.99999994"}, [](Problem& p) { p.dropout = 1; }},
                    Wrong{{"dropout = nan"}, [](Problem& p) { p.dropout = kNaN; }},
                    Wrong{{"descale", "dtype = bf16"}, [](Problem& p) { p.descale.kind = DescaleKind::tensor; }},
                    Wrong{{"descale.kind = 4"}, [](Problem& p) { p.descale.kind = static_cast<DescaleKind>(4); }},
                    Wrong{{"descale.block_k = 0", "nearest: 1"},
                          [](Problem& p) {
                            p.dtype = DType::e4m3, p.descale = {DescaleKind::block, 128, 0};
                          }},
                    Wrong{{"descale.block_q = 64"},
                          [](Problem& p) {
                            p.dtype = DType::e4m3, p.descale = {DescaleKind::head, 64, 0};
                          }},
                    Wrong{{"descale.block_k = 64"}, [](Problem& p) { p.descale.block_k = 64; }}));

INSTANTIATE_TEST_SUITE_P(
    Masks, ValidateRule,
    testing::Values(Wrong{{"window_left = -2", "nearest: -1"}, [](Problem& p) { p.mask.window_left = -2; }},
                    Wrong{{"window_right = -9", "nearest: -1"}, [](Problem& p) { p.mask.window_right = -9; }},
                    Wrong{{"chunk = -1", "nearest: 0"}, [](Problem& p) { p.mask.chunk = -1; }},
                    Wrong{{"block_k = 0", "nearest: 1"}, [](Problem& p) { p.mask.block_sparse.block_q = 64; }},
                    Wrong{{"block_q = 0", "nearest: 1"}, [](Problem& p) { p.mask.block_sparse.per_head = true; }},
                    Wrong{{"block_q = -64", "nearest: 1"},
                          [](Problem& p) {
                            p.mask.block_sparse = {-64, 64};
                          }},
                    Wrong{{"block_k = -64", "nearest: 1"}, [](Problem& p) {
                            p.mask.block_sparse = {64, -64};
                          }}));

INSTANTIATE_TEST_SUITE_P(
    Outputs, ValidateRule,
    testing::Values(Wrong{{"return_max_logit"}, [](Problem& p) { p.return_max_logit = true; }, Pass::backward},
                    Wrong{{"dlse = true needs pass = backward"}, [](Problem& p) { p.dlse = true; }},
                    Wrong{{"dbias = true needs pass = backward"},
                          [](Problem& p) { p.dbias = true, p.score.bias = Bias{}; }},
                    Wrong{{"dsink = true needs pass = backward"}, [](Problem& p) { p.dsink = true, p.sinks = true; }},
                    Wrong{{"dlse = true needs"}, [](Problem& p) { p.dlse = true; }, Pass::decode},
                    Wrong{{"dbias = true needs a bias"}, [](Problem& p) { p.dbias = true; }, Pass::backward},
                    Wrong{{"dsink = true needs sinks"}, [](Problem& p) { p.dsink = true; }, Pass::backward}));

INSTANTIATE_TEST_SUITE_P(
    Cache, ValidateRule,
    testing::Values(
        Wrong{{"kv_cache needs pass = decode", "forward"}, [](Problem& p) { p.kv_cache.emplace(); }},
        Wrong{{"total_k = 9"}, [](Problem& p) { p.kv_cache.emplace(), p.total_k = 9; }, Pass::decode},
        Wrong{{"pages = 0", "nearest: 1"}, [](Problem& p) { p.kv_cache.emplace().page_size = 16; }, Pass::decode},
        Wrong{{"pages = 7", "nearest: 0"}, [](Problem& p) { p.kv_cache.emplace().pages = 7; }, Pass::decode},
        Wrong{{"page_size = -1"}, [](Problem& p) { p.kv_cache.emplace().page_size = -1; }, Pass::decode},
        Wrong{{"append = 201", "nearest: 200"}, [](Problem& p) { p.kv_cache.emplace().append = 201; }, Pass::decode},
        Wrong{{"rotary_dim = 130", "nearest: 128"},
              [](Problem& p) { p.kv_cache.emplace().rotary_dim = 130; },
              Pass::decode},
        Wrong{
            {"rotary_dim = 33", "nearest: 32"}, [](Problem& p) { p.kv_cache.emplace().rotary_dim = 33; }, Pass::decode},
        Wrong{{"rotary_interleaved"}, [](Problem& p) { p.kv_cache.emplace().rotary_interleaved = true; }, Pass::decode},
        Wrong{{"strides.k.seqlen = 0", "overlap"},
              [](Problem& p) {
                p.kv_cache.emplace().append = 1, p.strides.k = {204800, 0, 128, 1};
              },
              Pass::decode}));

TEST(Validate, AcceptsWhatIsUnusualButRight) {
  Problem p = valid();
  p.strides.q = Strides{0, 0, 0, 1};                                                          // expanded
  p.strides.k = Strides{.batch = 128 * 200, .seqlen = 128, .head = 2 * 128 * 200, .dim = 1};  // heads before sequences
  p.strides.o = Strides{.batch = 128, .seqlen = 2 * 128, .head = 2 * 128 * 100, .dim = 1};    // batch inside
  EXPECT_NO_THROW(validate(p));

  p = valid(Pass::backward);
  p.strides.dout = Strides{0, 0, 0, 0};                  // the gradient of a sum
  p.strides.dq = Strides{3 * 409600, 3 * 4096, 128, 1};  // one third of a fused gradient
  p.head_dim = 576, p.head_dim_v = 512;
  EXPECT_THROW(validate(p), Error);  // 128 does not step over 576
  p.strides.dq.reset();
  EXPECT_NO_THROW(validate(p));

  p = valid();
  p.seqlen_k = 0, p.total_k = 0, p.softmax_scale = -1, p.dropout = 0.5;
  EXPECT_NO_THROW(validate(p));
  p.strides.o = Strides{-0, 5, 128, 1};
  EXPECT_THROW(validate(p), Error);
  p.batch = p.seqlen_q = p.heads_q = p.heads_kv = 1;  // extents of 1 never step
  EXPECT_NO_THROW(validate(p));
}

}  // namespace
}  // namespace fattn
