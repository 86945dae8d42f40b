// SPDX-License-Identifier: Apache-2.0
#include "fattn/problem.hpp"

#include <rapidcheck.h>

#include <cmath>

#include "core/expect_error.hpp"
#include "core/extents.hpp"
#include "core/lower.hpp"

namespace fattn {
namespace {

TEST(Problem, DerivedFacts) {
  Problem p{.heads_q = 8, .heads_kv = 2, .seqlen_q = 3, .seqlen_k = 5, .head_dim = 64};
  EXPECT_EQ(output_dtype(p), DType::bf16);
  EXPECT_EQ(head_dim_v(p), 64);
  EXPECT_DOUBLE_EQ(softmax_scale(p), 0.125);
  EXPECT_EQ(strides(p, Operand::q), (Strides{3 * 8 * 64, 8 * 64, 64, 1}));
  EXPECT_EQ(strides(p, Operand::k), (Strides{5 * 2 * 64, 2 * 64, 64, 1}));

  p.dtype = DType::e4m3;
  EXPECT_EQ(output_dtype(p), DType::bf16);
  p.out_dtype = DType::fp32;
  EXPECT_EQ(output_dtype(p), DType::fp32);
  p.head_dim_v = 32;
  EXPECT_EQ(strides(p, Operand::v), (Strides{5 * 2 * 32, 2 * 32, 32, 1}));
  EXPECT_EQ(strides(p, Operand::dout), (Strides{3 * 8 * 32, 8 * 32, 32, 1}));
  EXPECT_EQ(strides(p, Operand::dq), (Strides{3 * 8 * 64, 8 * 64, 64, 1}));
  EXPECT_EQ(strides(p, Operand::dv), (Strides{5 * 2 * 32, 2 * 32, 32, 1}));
  p.softmax_scale = 2;
  EXPECT_EQ(softmax_scale(p), 2);
  p.strides.k = Strides{1, 2, 3, 1};
  EXPECT_EQ(strides(p, Operand::k), (Strides{1, 2, 3, 1}));
}

TEST(Problem, PackedAndPagedShapes) {
  Problem p{.batch = 4, .heads_q = 8, .heads_kv = 2, .seqlen_q = 3, .seqlen_k = 100, .head_dim = 64};
  p.total_q = 10;
  EXPECT_EQ(strides(p, Operand::q), (Strides{0, 8 * 64, 64, 1}));
  EXPECT_EQ(extents(p, Operand::o).batch, 1);
  EXPECT_EQ(extents(p, Operand::o).seqlen, 10);
  EXPECT_EQ(extents(p, Operand::k).seqlen, 100);

  p.pass = Pass::decode;
  p.kv_cache = KvCache{.page_size = 16, .pages = 50};
  EXPECT_EQ(extents(p, Operand::v).batch, 50);
  EXPECT_EQ(extents(p, Operand::v).seqlen, 16);
  EXPECT_EQ(strides(p, Operand::v), (Strides{16 * 2 * 64, 2 * 64, 64, 1}));
}

TEST(Problem, VisiblePairs) {
  const auto pairs = [](std::int64_t q, std::int64_t k, Mask mask) {
    return visible_pairs(Problem{.batch = 2, .heads_q = 3, .seqlen_q = q, .seqlen_k = k, .mask = mask}) / 6;
  };
  EXPECT_EQ(pairs(4, 6, full()), 24);
  EXPECT_EQ(pairs(4, 4, causal()), 10);
  EXPECT_EQ(pairs(4, 6, causal()), 3 + 4 + 5 + 6);
  EXPECT_EQ(pairs(6, 4, causal()), 0 + 0 + 1 + 2 + 3 + 4);
  EXPECT_EQ(pairs(6, 4, causal_top_left()), 1 + 2 + 3 + 4 + 4 + 4);
  EXPECT_EQ(pairs(4, 4, window(1, 0)), 1 + 2 + 2 + 2);
  EXPECT_EQ(pairs(6, 6, chunk(4)), 4 * 4 + 2 * 2);
  EXPECT_EQ(pairs(5, 0, causal()), 0);
  // 2^30 - 1 rows are summed without walking over them.
  const std::int64_t n = (1 << 30) - 1;
  EXPECT_EQ(pairs(n, n, causal()), static_cast<double>(n) * static_cast<double>(n + 1) / 2);
  EXPECT_EQ(pairs(n, n, chunk(1)), static_cast<double>(n));
  EXPECT_EQ(pairs(n, n, window(2, 2)), static_cast<double>(5 * n - 6));
}

TEST(Problem, VisiblePairsIsTheSumOverQueries) {
  const bool held = rc::check("closed form = sum of the intervals", [] {
    const int seqlen_q = *rc::gen::inRange(1, 60), seqlen_k = *rc::gen::inRange(0, 60);
    const auto limit = rc::gen::oneOf(rc::gen::just(kUnbounded), rc::gen::inRange(0, 70));
    const BandLimits limits{*limit, *limit, *rc::gen::oneOf(rc::gen::just(0), rc::gen::inRange(1, 70)),
                            *rc::gen::arbitrary<bool>()};
    const Band band = Band::of(limits, seqlen_q, seqlen_k);
    std::int64_t sum = 0;
    for (int query = 0; query < seqlen_q; ++query) {
      const Interval keys = band.visible(query);
      sum += std::max(0, keys.end - keys.begin);
    }
    RC_ASSERT(visible_pairs(band) == sum);
  });
  EXPECT_TRUE(held);
}

TEST(Problem, Flops) {
  Problem p{.batch = 2, .heads_q = 3, .seqlen_q = 4, .seqlen_k = 6, .head_dim = 64, .head_dim_v = 32};
  EXPECT_EQ(flops(p), 2.0 * 2 * 3 * 24 * (64 + 32));
  p.pass = Pass::backward;
  EXPECT_EQ(flops(p), 2.0 * 2 * 3 * 24 * (3 * 64 + 2 * 32));
}

TEST(Problem, Names) {
  EXPECT_EQ(to_string(DType::e4m3), "e4m3");
  EXPECT_EQ(to_string(Pass::backward), "backward");
  EXPECT_EQ(to_string(Operand::dout), "dout");
}

}  // namespace
}  // namespace fattn
