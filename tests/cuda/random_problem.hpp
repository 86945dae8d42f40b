// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <random>

#include "fattn/problem.hpp"

namespace fattn::test {

// A small random problem of everything that the oracles accept.
class RandomProblem {
 public:
  explicit RandomProblem(std::uint64_t seed) : random_(seed) {}

  Problem draw(Pass pass) {
    Problem p;
    p.pass = pass;
    p.dtype = std::array{DType::fp64, DType::fp32, DType::bf16, DType::fp16}[static_cast<std::size_t>(below(4))];
    if (!one_in(3)) p.out_dtype = DType::fp64;
    draw_extents(p);
    draw_mask(p);
    draw_score(p);
    p.dlse = pass == Pass::backward && one_in(2);
    p.return_lse = pass == Pass::forward;
    p.return_max_logit = pass == Pass::forward && one_in(2);
    draw_strides(p);
    return p;
  }

 private:
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(n)); }
  bool one_in(int n) { return below(n) == 0; }

  void draw_extents(Problem& p) {
    p.batch = 1 + below(3);
    p.heads_kv = 1 + below(2);
    p.heads_q = p.heads_kv * (1 + below(3));
    p.seqlen_q = 1 + below(150);
    p.seqlen_k = one_in(12) ? 0 : 1 + below(150);
    p.head_dim = 1 + below(one_in(4) ? 200 : 48);
    p.head_dim_v = one_in(2) ? 0 : 1 + below(one_in(4) ? 200 : 48);
    if (one_in(3)) p.total_q = 1 + below(p.batch * p.seqlen_q + 9);
    if (one_in(3)) p.total_k = below(p.batch * p.seqlen_k + 9);
    p.seqused_q = one_in(4);
    p.seqused_k = one_in(4);
  }

  void draw_mask(Problem& p) {
    p.mask.causal = one_in(3);
    p.mask.causal_top_left = one_in(5);
    if (one_in(3)) p.mask.window_left = below(80);
    if (one_in(3)) p.mask.window_right = below(80);
    if (one_in(4)) p.mask.chunk = 1 + below(100);
  }

  void draw_score(Problem& p) {
    const bool backward = p.pass == Pass::backward;
    if (one_in(3)) p.score.softcap = 1.5;
    if (one_in(3)) {
      p.score.bias = Bias{one_in(2), one_in(2), one_in(2), one_in(2), one_in(2) ? DType::fp32 : DType::bf16};
      p.dbias = backward;
    }
    if (one_in(3)) p.score.alibi = one_in(2) ? Alibi::per_head : Alibi::per_batch_and_head;
    p.sinks = one_in(3);
    p.dsink = p.sinks && backward;
  }

  Strides padded(bool packed, std::int64_t rows, std::int64_t heads, std::int64_t dim) {
    Strides s;
    s.head = dim + below(5);
    s.seqlen = heads * s.head + below(5);
    s.batch = packed ? 0 : std::max<std::int64_t>(rows, 1) * s.seqlen + below(5);
    return s;
  }

  void draw_strides(Problem& p) {
    const bool packed_q = p.total_q.has_value(), packed_k = p.total_k.has_value();
    const std::int64_t dv = p.head_dim_v != 0 ? p.head_dim_v : p.head_dim;
    if (one_in(3)) p.strides.q = padded(packed_q, p.seqlen_q, p.heads_q, p.head_dim);
    if (one_in(3)) p.strides.v = padded(packed_k, p.seqlen_k, p.heads_kv, dv);
    if (one_in(3)) p.strides.o = padded(packed_q, p.seqlen_q, p.heads_q, dv);
    if (p.pass != Pass::backward) return;
    if (one_in(3)) p.strides.dk = padded(packed_k, p.seqlen_k, p.heads_kv, p.head_dim);
    if (one_in(4)) p.strides.dout = padded(packed_q, p.seqlen_q, p.heads_q, dv);
  }

  std::mt19937_64 random_;
};

}  // namespace fattn::test
