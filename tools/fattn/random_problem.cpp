// SPDX-License-Identifier: Apache-2.0
#include "random_problem.hpp"

#include <algorithm>

#include "core/extents.hpp"
#include "fattn/error.hpp"
#include "verify/random.hpp"

namespace fattn::tool {

namespace {

using std::int64_t;

// Multiply-adds of the oracle, which is written to be read: a fraction of a second.
constexpr double kMostWork = 2e8;

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : random_(seed) {}

  verify::Case draw() {
    verify::Case one;
    do {
      one = {any(), {}};
    } while (!is_valid(one.problem) || work(one.problem) > kMostWork);
    one.data.seed = random_.next() % 1'000'000 + 2;
    if (one_in(4)) one.data.q_scale = one_of<double>({0, 3, 8});
    if (one_in(8)) one.data.k_ramp = 8;
    if (one.problem.score.bias && one_in(4)) one.data.bias_shift = one_of<double>({-120, 30});
    return one;
  }

 private:
  int64_t between(int64_t low, int64_t high) { return random_.between(low, high); }
  bool one_in(int n) { return between(1, n) == 1; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[between(0, static_cast<int64_t>(values.size()) - 1)];
  }

  static bool is_valid(const Problem& problem) {
    try {
      validate(problem);
      return true;
    } catch (const Error&) {
      return false;
    }
  }
  static double work(const Problem& p) {
    return static_cast<double>(p.batch * p.heads_q) * static_cast<double>(p.seqlen_q) *
           static_cast<double>(p.seqlen_k) * static_cast<double>(p.head_dim + head_dim_v(p)) *
           (p.pass == Pass::backward ? 2.5 : 1);
  }

  // Short ones, edges of tiles, and now and then several tiles.
  int64_t length(bool queries) {
    switch (between(0, 5)) {
      case 0: return between(1, 8);
      case 1: return one_of<int64_t>({63, 64, 65, 95, 96, 97, 127, 128, 129, 192, 256});
      case 2: return queries ? 1 : between(500, 2500);
      case 3: return between(200, 700);
      default: return between(1, 200);
    }
  }
  int64_t dim() {
    if (one_in(2)) return one_of<int64_t>({16, 32, 64, 80, 96, 128, 256});
    return one_in(3) ? between(1, 130) : 8 * between(1, 32);
  }

  Problem any() {
    Problem p;
    p.pass = one_of({Pass::forward, Pass::forward, Pass::forward, Pass::forward, Pass::backward, Pass::backward,
                     Pass::backward, Pass::backward, Pass::decode});
    p.dtype = one_of({DType::fp32, DType::fp32, DType::bf16, DType::bf16, DType::bf16, DType::fp16, DType::fp16,
                      DType::fp64, DType::e4m3});
    if (one_in(5)) p.out_dtype = one_of({DType::fp32, DType::fp64, DType::bf16, p.dtype});
    draw_extents(p);
    draw_mask(p);
    draw_score(p);
    draw_outputs(p);
    if (one_in(4)) draw_layouts(p);
    if (p.pass == Pass::decode && one_in(2)) draw_cache(p);
    return p;
  }

  void draw_extents(Problem& p) {
    p.batch = between(1, 4);
    p.heads_kv = between(1, 3);
    p.heads_q = p.heads_kv * one_of<int64_t>({1, 1, 2, 3, 4, 8});
    p.seqlen_q = p.pass == Pass::decode ? between(1, 4) : length(true);
    p.seqlen_k = one_in(25) ? 0 : one_in(3) ? p.seqlen_q : length(false);
    p.head_dim = dim();
    if (one_in(4)) p.head_dim_v = dim();
    // Room for all sequences, or for less than their bounds would need, and rows that belong to none.
    if (one_in(4)) p.total_q = between(1, p.batch * p.seqlen_q + 20);
    if (one_in(4)) p.total_k = between(0, p.batch * p.seqlen_k + 20);
    p.seqused_q = one_in(6);
    p.seqused_k = one_in(6);
  }

  void draw_mask(Problem& p) {
    Mask& mask = p.mask;
    mask.causal = one_in(2);
    mask.causal_top_left = one_in(8);
    if (one_in(5)) mask.window_left = between(0, 300);
    if (one_in(8)) mask.window_right = between(0, 100);
    if (one_in(8)) mask.chunk = between(1, 200);
    mask.documents = one_in(10);
    mask.prefix = one_in(10);
    if (one_in(10)) mask.block_sparse = {between(1, 130), between(1, 130), one_in(2), one_in(2)};
  }

  void draw_score(Problem& p) {
    if (one_in(5)) p.softmax_scale = one_of({0.05, 0.3, -0.1, 0.0, 1.0 / 3});
    if (one_in(5)) p.score.softcap = one_of({1.5, 30.0, 50.0});
    if (one_in(6)) {
      p.score.bias = Bias{one_in(2), one_in(2), one_in(2), one_in(2),
                          one_of({DType::fp32, DType::bf16, DType::fp16, DType::fp64})};
    }
    if (one_in(6)) p.score.alibi = one_in(2) ? Alibi::per_head : Alibi::per_batch_and_head;
    p.sinks = one_in(5);
    if (one_in(8)) p.dropout = one_of({0.1, 0.5, 0.97});
    if (p.dtype != DType::e4m3) return;
    p.descale.kind = one_of({DescaleKind::none, DescaleKind::tensor, DescaleKind::head, DescaleKind::block});
    if (p.descale.kind == DescaleKind::block) p.descale = {DescaleKind::block, between(1, 130), between(1, 130)};
  }

  void draw_outputs(Problem& p) {
    const bool backward = p.pass == Pass::backward;
    p.return_lse = !backward && one_in(2);
    p.return_max_logit = p.pass == Pass::forward && one_in(4);
    p.dlse = backward && one_in(4);
    p.dbias = backward && p.score.bias && one_in(2);
    p.dsink = backward && p.sinks && one_in(2);
    p.deterministic = one_in(4);
    p.batch_invariant = one_in(6);
  }

  // Padded, heads before rows, and an expanded gradient of o.
  void draw_layouts(Problem& p) {
    if (one_in(3)) p.alignment = one_of<int64_t>({8, 32, 64, 256});
    for (const Operand operand : kOperands) {
      if (!takes_part(p.pass, operand) || !one_in(3)) continue;
      const Extents e = extents(p, operand);
      const int64_t row = e.dim + between(0, 3) * 8, rows = std::max<int64_t>(e.seqlen, 1);
      Strides& s = given_strides(p.strides, operand).emplace();
      s = one_in(2) ? Strides{rows * e.heads * row, row, rows * row, 1}
                    : Strides{rows * (e.heads * row + 8), e.heads * row + 8, row, 1};
      if (packed(p, operand)) s.batch = 0;
      if (operand == Operand::dout && one_in(4)) s = {0, 0, 0, 0};
    }
  }

  void draw_cache(Problem& p) {
    KvCache& cache = p.kv_cache.emplace();
    if (one_in(2)) cache.page_size = one_of<int64_t>({1, 16, 64, 100}), cache.pages = between(1, 200);
    if (one_in(2)) cache.append = between(0, 2);
    cache.leftpad = one_in(4);
    if (one_in(3)) cache.rotary_dim = 2 * between(1, std::max<int64_t>(1, p.head_dim / 2));
    cache.rotary_interleaved = cache.rotary_dim > 0 && one_in(2);
  }

  verify::Random random_;
};

}  // namespace

verify::Case random_case(std::uint64_t seed, std::int64_t number) {
  return Draw(verify::seed_of(seed, "problem", number)).draw();
}

}  // namespace fattn::tool
