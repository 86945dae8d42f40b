// SPDX-License-Identifier: Apache-2.0
// The same numbers put elsewhere: the bits of the results must not change.
#include "properties/numerics_support.hpp"

namespace fattn::properties {
namespace {

constexpr Operand kOperands[] = {Operand::q,    Operand::k,  Operand::v,  Operand::o,
                                 Operand::dout, Operand::dq, Operand::dk, Operand::dv};

std::optional<Strides>& strides_of(Layouts& layouts, Operand operand) {
  switch (operand) {
    case Operand::q: return layouts.q;
    case Operand::k: return layouts.k;
    case Operand::v: return layouts.v;
    case Operand::o: return layouts.o;
    case Operand::dout: return layouts.dout;
    case Operand::dq: return layouts.dq;
    case Operand::dk: return layouts.dk;
    default: return layouts.dv;
  }
}

// Any order of batch, seqlen and heads, with gaps.
Strides any_strides(const verify::Index4& extents) {
  std::vector<int> order = {0, 1, 2};
  for (int i = 2; i > 0; --i)
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(in_range(0, i))]);
  std::int64_t stride[3], inside = extents[3];
  for (const int dimension : order) {
    stride[dimension] = inside + in_range(0, 3) * in_range(0, 9);
    inside = stride[dimension] * extents[static_cast<std::size_t>(dimension)];
  }
  return {stride[0], stride[1], stride[2], 1};
}

TEST(LayoutProperties, StridesChangeNoBit) {
  holds("results do not depend on strides", [] {
    Problem plain = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    plain.mask = any_band();
    any_score(plain);
    plain.alignment = size_of(plain.dtype);
    Problem strided = plain;
    for (const Operand operand : kOperands) {
      if (plain.pass == Pass::forward && operand > Operand::o) continue;
      strides_of(strided.strides, operand) = any_strides(verify::extents_of(plain, operand));
    }
    const verify::DataOptions options = any_data();
    for (const std::string& row : rows_for({plain, strided})) {
      verify::CaseData a(plain, cpu(2), options), b(strided, cpu(2), options);
      require_same_bits(row, run_row(a, row), run_row(b, row));
    }
  });
}

TEST(LayoutProperties, AnExpandedGradientIsAMaterialisedOne) {
  holds("dout with strides of 0 == dout written out", [] {
    Problem expanded = small_problem(Pass::backward);
    expanded.mask = any_band();
    any_score(expanded);
    const verify::Index4 extents = verify::extents_of(expanded, Operand::dout);
    // Some dimensions are expanded, among them the innermost now and then.
    Strides s{extents[1] * extents[2] * extents[3], extents[2] * extents[3], extents[3], 1};
    if (in_range(0, 1) == 0) s.batch = 0;
    if (in_range(0, 1) == 0) s.seqlen = 0;
    if (in_range(0, 1) == 0) s.head = 0;
    if (in_range(0, 1) == 0) s.dim = 0;
    Problem plain = expanded;
    expanded.strides.dout = s;
    const verify::DataOptions options = any_data();
    for (const std::string& row : rows_for({plain, expanded})) {
      verify::CaseData a(plain, cpu(2), options), b(expanded, cpu(2), options);
      a.tensor("dout").set_values(b.tensor("dout").values());
      require_same_bits(row, run_row(a, row), run_row(b, row));
    }
  });
}

// One packed sequence is a dense batch of one.
TEST(LayoutProperties, ABatchOfOneIsAPackedSequence) {
  holds("packed(one sequence) == dense(batch 1)", [] {
    Problem dense = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    dense.batch = 1;
    dense.mask = any_band();
    any_score(dense);
    Problem packed = dense;
    packed.total_q = dense.seqlen_q;
    packed.total_k = dense.seqlen_k;
    const verify::DataOptions options = any_data();
    verify::DataOptions whole = options;
    whole.lengths_q = {dense.seqlen_q};
    whole.lengths_k = {dense.seqlen_k};
    for (const std::string& row : rows_for({dense, packed})) {
      verify::CaseData a(dense, cpu(2), options), b(packed, cpu(2), whole);
      require_same_bits(row, run_row(a, row), run_row(b, row));
    }
  });
}

// batch_invariant: a sequence has the bits it would have alone.
TEST(LayoutProperties, NeighboursChangeNoBit) {
  holds("a sequence of a batch_invariant batch == the sequence alone", [] {
    Problem together = small_problem(Pass::forward);
    together.batch = in_range(2, 4);
    together.mask = any_band();
    together.batch_invariant = true;
    std::vector<std::int64_t> lengths_q, lengths_k;
    std::int64_t total_q = 0, total_k = 0;
    for (std::int64_t b = 0; b < together.batch; ++b) {
      lengths_q.push_back(in_range(0, together.seqlen_q));
      lengths_k.push_back(in_range(0, together.seqlen_k));
      total_q += lengths_q.back();
      total_k += lengths_k.back();
    }
    together.total_q = std::max<std::int64_t>(total_q, 1);
    together.total_k = total_k;
    verify::DataOptions options = any_data();
    options.lengths_q = lengths_q;
    options.lengths_k = lengths_k;
    const std::int64_t chosen = in_range(0, together.batch - 1);
    const auto at = static_cast<std::size_t>(chosen);
    if (lengths_q[at] == 0) return;
    Problem alone = together;
    alone.batch = 1;
    alone.seqlen_q = alone.total_q.emplace(lengths_q[at]);
    alone.seqlen_k = alone.total_k.emplace(lengths_k[at]);
    verify::DataOptions alone_options = options;
    alone_options.lengths_q = {lengths_q[at]};
    alone_options.lengths_k = {lengths_k[at]};
    std::int64_t first_q = 0, first_k = 0;
    for (std::size_t b = 0; b < at; ++b) first_q += lengths_q[b], first_k += lengths_k[b];
    for (const std::string& row : rows_for({together, alone})) {
      verify::CaseData a(together, cpu(2), options), b(alone, cpu(2), alone_options);
      const auto copy = [&](const char* name, std::int64_t first) {
        verify::Tensor& to = b.tensor(name);
        Values row_values(static_cast<std::size_t>(to.row_elements()));
        for (std::int64_t r = 0; r < to.rows(); ++r) {
          a.tensor(name).get_row(first * to.extents()[2] + r, row_values.data());
          to.set_row(r, row_values.data());
        }
      };
      copy("q", first_q), copy("k", first_k), copy("v", first_k);
      const Outputs all = run_row(a, row), one = run_row(b, row);
      const std::int64_t width = together.heads_q * together.head_dim_v;
      const Values o = all.at("o").values(), o_alone = one.at("o").values();
      for (std::size_t i = 0; i < o_alone.size(); ++i) {
        RC_ASSERT(o[static_cast<std::size_t>(first_q * width) + i] == o_alone[i]);
      }
      const Values lse = all.at("lse").values(), lse_alone = one.at("lse").values();
      for (std::int64_t h = 0; h < together.heads_q; ++h) {
        for (std::int64_t i = 0; i < lengths_q[at]; ++i) {
          RC_ASSERT(lse[static_cast<std::size_t>(h * *together.total_q + first_q + i)] ==
                    lse_alone[static_cast<std::size_t>(h * lengths_q[at] + i)]);
        }
      }
    }
  });
}

// Test data has NaN in keys that no query sees; any other value there gives the same bits.
TEST(LayoutProperties, HiddenKeysReachNothing) {
  holds("keys that no query sees change no bit", [] {
    Problem p = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    p.mask = any_band();
    any_score(p);
    p.seqused_q = *rc::gen::inRange(0, 2) == 0;
    p.seqused_k = *rc::gen::inRange(0, 2) == 0;
    const verify::DataOptions options = any_data();
    const double filling = *rc::gen::element(0.0, 3.0, -1000.0, static_cast<double>(INFINITY));
    for (const std::string& row : rows_for({p})) {
      verify::CaseData hidden(p, cpu(2), options), filled(p, cpu(2), options);
      for (const char* name : {"k", "v"}) {
        Values values = filled.tensor(name).values();
        for (double& x : values) x = std::isnan(x) ? filling : x;
        filled.tensor(name).set_values(values);
      }
      const Outputs a = run_row(hidden, row), b = run_row(filled, row);
      require_same_bits(row, a, b);
      for (const auto& [name, tensor] : a) {
        for (const double x : tensor.values()) RC_ASSERT(!std::isnan(x));
      }
    }
  });
}

// Two ways to say one mask are one mask.
TEST(LayoutProperties, EqualMasksGiveEqualBits) {
  holds("causal == window(-1, 0), full == window(long, long)", [] {
    Problem p = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    Problem other = p;
    if (*rc::gen::inRange(0, 2) == 0) {
      p.mask = causal();
      other.mask = window(-1, 0);
    } else {
      const std::int64_t longest = p.seqlen_q + p.seqlen_k;
      other.mask = window(longest, longest);
    }
    const verify::DataOptions options = any_data();
    for (const std::string& row : rows_for({p, other})) {
      verify::CaseData a(p, cpu(2), options), b(other, cpu(2), options);
      require_same_bits(row, run_row(a, row), run_row(b, row));
    }
  });
}

}  // namespace
}  // namespace fattn::properties
