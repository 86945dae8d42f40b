// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <rapidcheck.h>

#include <bit>
#include <cfloat>
#include <cmath>

#include "core/extents.hpp"
#include "fattn/problem.hpp"

namespace fattn::properties {

inline bool coin() { return *rc::gen::arbitrary<bool>(); }
inline bool rarely() { return *rc::gen::inRange(0, 5) == 0; }
inline std::int64_t between(std::int64_t low, std::int64_t high) { return *rc::gen::inRange(low, high + 1); }
template <class T>
T one_of(std::initializer_list<T> values) {
  return *rc::gen::elementOf(std::vector<T>(values));
}

// Any double that is a finite fp32 in size, also denormals, -0 and numbers with all their digits.
inline double any_real() {
  const double bits = std::bit_cast<double>(*rc::gen::arbitrary<std::uint64_t>());
  if (std::fabs(bits) <= FLT_MAX) return bits;
  return one_of({0.0, -0.0, 0.125, 1 / std::sqrt(80.0), -3.5, 1e-30, static_cast<double>(FLT_MAX)});
}

inline Mask any_mask() {
  constexpr std::int64_t kHuge = INT64_MAX;
  Mask mask;
  mask.causal = coin();
  mask.causal_top_left = rarely();
  mask.window_left = one_of<std::int64_t>({-1, -1, between(0, 50), kHuge});
  mask.window_right = one_of<std::int64_t>({-1, -1, between(0, 50), kHuge});
  mask.chunk = one_of<std::int64_t>({0, 0, between(1, 50), kHuge});
  mask.documents = rarely();
  mask.prefix = rarely();
  if (rarely()) mask.block_sparse = {between(1, 256), between(1, 256), coin(), coin()};
  return mask;
}

inline Score any_score() {
  Score score;
  score.softcap = one_of({0.0, 30.0, std::fabs(any_real())});
  if (score.softcap < FLT_MIN) score.softcap = 0;
  if (coin())
    score.bias = Bias{coin(), coin(), coin(), coin(), one_of({DType::fp64, DType::fp32, DType::bf16, DType::fp16})};
  score.alibi = one_of({Alibi::none, Alibi::per_head, Alibi::per_batch_and_head});
  return score;
}

// Contiguous, padded, heads before rows, or, where nothing is written, expanded or overlapping.
inline Strides any_strides(const Problem& p, Operand operand, bool written) {
  const Extents e = extents(p, operand);
  const std::int64_t row = e.dim + between(0, 3), rows = std::max<std::int64_t>(e.seqlen, 1);
  const std::int64_t batch = packed(p, operand) ? between(0, 9) : -1;  // ignored when packed
  switch (between(0, written ? 1 : 3)) {
    case 0: return {batch >= 0 ? batch : rows * e.heads * row, e.heads * row, row, 1};
    case 1: return {batch >= 0 ? batch : rows * e.heads * row, row, rows * row, 1};
    case 2: return {0, row, 0, 1};
    default: return {between(0, 9), between(0, 9), between(0, 9), operand == Operand::dout ? 0 : 1};
  }
}

inline KvCache any_cache(const Problem& p) {
  KvCache cache;
  if (coin()) cache.page_size = between(1, 256), cache.pages = between(1, 1000);
  if (coin()) cache.append = between(0, std::min<std::int64_t>(p.seqlen_k, 4));
  cache.leftpad = coin();
  if (coin()) cache.rotary_dim = 2 * between(0, p.head_dim / 2);
  cache.rotary_interleaved = cache.rotary_dim > 0 && coin();
  return cache;
}

// A valid Problem; every field takes values other than its default.
inline rc::Gen<Problem> any_problem() {
  return rc::gen::exec([] {
    constexpr std::int64_t kLongest = (1 << 30) - 1;
    Problem p;
    p.pass = one_of({Pass::forward, Pass::backward, Pass::decode});
    p.dtype = one_of({DType::fp64, DType::fp32, DType::bf16, DType::fp16, DType::e4m3});
    if (coin()) p.out_dtype = one_of({DType::fp32, DType::fp64, p.dtype == DType::e4m3 ? DType::fp16 : p.dtype});
    p.batch = between(1, 4);
    p.heads_kv = between(1, 3);
    p.heads_q = p.heads_kv * between(1, 3);
    p.seqlen_q = rarely() ? kLongest : between(1, 40);
    p.score = any_score();
    // A whole bias of the longest sequences would be beyond the address space.
    const bool whole_bias = p.score.bias && p.score.bias->queries && p.score.bias->keys;
    p.seqlen_k = rarely() && !whole_bias ? kLongest : between(0, 40);
    p.head_dim = between(1, 576);
    if (p.head_dim > 512 || coin()) p.head_dim_v = between(1, 512);
    if (p.pass == Pass::decode && coin()) p.kv_cache = any_cache(p);
    if (rarely()) p.total_q = between(1, 200);
    if (rarely() && !p.kv_cache) p.total_k = between(0, 200);
    p.seqused_q = rarely();
    p.seqused_k = rarely();
    p.mask = any_mask();
    if (coin()) p.softmax_scale = any_real();
    p.sinks = coin();
    p.dropout = one_of({0.0, 0.1, std::nextafter(1.0, 0.0), 5e-324});
    if (p.dtype == DType::e4m3) {
      p.descale.kind = one_of({DescaleKind::none, DescaleKind::tensor, DescaleKind::head, DescaleKind::block});
      if (p.descale.kind == DescaleKind::block) p.descale = {DescaleKind::block, between(1, 256), between(1, 256)};
    }
    p.return_lse = coin();
    p.return_max_logit = p.pass == Pass::forward && coin();
    const bool backward = p.pass == Pass::backward;
    p.dlse = backward && coin();
    p.dbias = backward && p.score.bias && coin();
    p.dsink = backward && p.sinks && coin();
    p.deterministic = coin();
    p.batch_invariant = coin();
    const std::int64_t widest = std::max(size_of(p.dtype), size_of(output_dtype(p)));
    p.alignment = coin() ? 16 : widest << between(0, 9);
    for (const Operand operand : kOperands) {
      const bool gradient = operand >= Operand::dout;
      const bool appended = of_keys(operand) && p.kv_cache && p.kv_cache->append > 0;
      const bool written = (operand == Operand::o && !backward) || operand >= Operand::dq || appended;
      if (rarely() && (backward || !gradient)) given_strides(p.strides, operand) = any_strides(p, operand, written);
    }
    return p;
  });
}

}  // namespace fattn::properties

namespace rc {
template <>
struct Arbitrary<fattn::Problem> {
  static Gen<fattn::Problem> arbitrary() { return fattn::properties::any_problem(); }
};
}  // namespace rc

namespace fattn {
inline void showValue(const Problem& problem, std::ostream& os) { os << to_string(problem); }
}  // namespace fattn
