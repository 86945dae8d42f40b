// SPDX-License-Identifier: Apache-2.0
// Laws of the function itself.
#include <numeric>

#include "algebra/softmax_state.hpp"
#include "properties/numerics_support.hpp"

namespace fattn::properties {
namespace {

// Rows of a tensor [batch, seqlen, heads, dim] taken from `from`: row i of the result is row order[i].
Values pick_rows(const verify::Tensor& from, const std::vector<std::int64_t>& order) {
  const auto& e = from.extents();
  const Values all = from.values();
  const std::int64_t row = e[2] * e[3];
  Values picked;
  for (std::int64_t b = 0; b < e[0]; ++b) {
    for (const std::int64_t i : order) {
      const auto begin = all.begin() + (b * e[1] + i) * row;
      picked.insert(picked.end(), begin, begin + row);
    }
  }
  return picked;
}

std::vector<std::int64_t> range(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(end - begin));
  std::iota(all.begin(), all.end(), begin);
  return all;
}

// Attention over some keys and over the others, merged as softmax_state.hpp says, is attention over all.
TEST(NumericsProperties, SplitKeysMergeToTheWhole) {
  holds("merge(attention(left keys), attention(right keys)) == attention(all keys)", [] {
    Problem p = small_problem(Pass::forward);
    p.out_dtype = p.dtype == DType::fp64 ? DType::fp64 : DType::fp32;
    const std::int64_t cut = in_range(0, p.seqlen_k);
    Problem left = p, right = p;
    left.seqlen_k = cut;
    right.seqlen_k = p.seqlen_k - cut;
    const verify::DataOptions options = any_data();
    for (const std::string& row : rows_for({p, left, right})) {
      verify::CaseData whole(p, cpu(2), options), a(left, cpu(2), options), b(right, cpu(2), options);
      for (const char* name : {"q", "k", "v"}) {
        const bool keys = name != std::string("q");
        a.tensor(name).set_values(keys ? pick_rows(whole.tensor(name), range(0, cut)) : whole.tensor(name).values());
        b.tensor(name).set_values(keys ? pick_rows(whole.tensor(name), range(cut, p.seqlen_k))
                                       : whole.tensor(name).values());
      }
      const Outputs all = run_row(whole, row), first = run_row(a, row), second = run_row(b, row);
      const Values lse_a = first.at("lse").values(), lse_b = second.at("lse").values();
      const Values o_a = first.at("o").values(), o_b = second.at("o").values();
      Values lse(lse_a.size()), o(o_a.size());
      const std::int64_t dv = p.head_dim_v;
      for (std::int64_t at = 0; at < static_cast<std::int64_t>(lse.size()); ++at) {
        const std::int64_t i = at % p.seqlen_q, h = at / p.seqlen_q % p.heads_q, n = at / p.seqlen_q / p.heads_q;
        const auto index = static_cast<std::size_t>(at);
        // A finished part is a state with the reference lse and the sum 1.
        SoftmaxState<double> state =
            std::isinf(lse_a[index]) ? SoftmaxState<double>::empty() : SoftmaxState<double>{lse_a[index], 1};
        const SoftmaxState<double> other =
            std::isinf(lse_b[index]) ? SoftmaxState<double>::empty() : SoftmaxState<double>{lse_b[index], 1};
        const MergeFactors<double> factors = merge(state, other, [](double x) { return std::exp(x); });
        lse[index] = state.max + std::log(state.sum);
        for (std::int64_t c = 0; c < dv; ++c) {
          const auto to = static_cast<std::size_t>(((n * p.seqlen_q + i) * p.heads_q + h) * dv + c);
          o[to] = (factors.a * o_a[to] + factors.b * o_b[to]) / state.sum;
        }
      }
      require_near(row, "lse", lse, all.at("lse").values(), DType::fp32);
      // The parts' lse are fp32, so the merged o is no better than that; P is rounded to the inputs' dtype.
      const DType coarse = p.dtype == DType::fp64 ? DType::fp32 : p.dtype;
      require_near(row, "o", o, all.at("o").values(), coarse);
    }
  });
}

TEST(NumericsProperties, OrderOfKeysMeansNothingWithoutAMask) {
  holds("attention(q, k[order], v[order]) == attention(q, k, v), dk[order] and dv[order] likewise", [] {
    Problem p = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    std::vector<std::int64_t> order = range(0, p.seqlen_k);
    for (std::size_t i = order.size() - 1; i > 0; --i) {
      std::swap(order[i], order[static_cast<std::size_t>(in_range(0, static_cast<std::int64_t>(i)))]);
    }
    const verify::DataOptions options = any_data();
    for (const std::string& row : rows_for({p})) {
      verify::CaseData one(p, cpu(2), options), other(p, cpu(2), options);
      for (const char* name : {"k", "v"}) other.tensor(name).set_values(pick_rows(one.tensor(name), order));
      const Outputs a = run_row(one, row), b = run_row(other, row);
      for (const auto& [name, tensor] : a) {
        const bool of_keys = name == "dk" || name == "dv";
        require_near(row, name, of_keys ? pick_rows(tensor, order) : tensor.values(), b.at(name).values(), p.dtype);
      }
    }
  });
}

TEST(NumericsProperties, AConstantBiasShiftsLseOnly) {
  holds("attention(s + c) == attention(s), lse + c", [] {
    Problem p = small_problem(Pass::forward);
    p.mask = any_band();
    p.score.bias = Bias{.queries = true, .keys = true};
    const verify::DataOptions options = any_data();
    const double shift = static_cast<double>(in_range(-1000, 1000)) / 8;
    for (const std::string& row : rows_for({p})) {
      verify::CaseData plain(p, cpu(2), options), shifted(p, cpu(2), options);
      Values bias = plain.tensor("bias").values();
      for (double& x : bias) x = std::round(x * 256) / 256;  // so that fp32 holds x + shift exactly
      plain.tensor("bias").set_values(bias);
      for (double& x : bias) x += shift;
      shifted.tensor("bias").set_values(bias);
      const Outputs a = run_row(plain, row), b = run_row(shifted, row);
      Values lse = a.at("lse").values();
      for (double& x : lse) x += shift;
      require_near(row, "lse", lse, b.at("lse").values(), DType::fp32);
      // s + c itself is rounded to fp32, 2^-17 near 125, and every weight with it.
      const Values o = a.at("o").values(), o_shifted = b.at("o").values();
      const double spacing = p.dtype == DType::fp64 && row.ends_with("fp64") ? 1e-10 : 1e-4;
      for (std::size_t i = 0; i < o.size(); ++i) {
        RC_ASSERT(near(o[i], o_shifted[i], spacing + 8 * verify::rounding_unit(p.dtype) * (0.25 + std::fabs(o[i]))));
      }
    }
  });
}

TEST(NumericsProperties, GroupedHeadsAreRepeatedHeads) {
  holds("grouped(k, v) == ungrouped(repeat(k), repeat(v)); dk is the sum over the group", [] {
    Problem grouped = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    grouped.mask = any_band();
    if (grouped.pass == Pass::backward && grouped.dtype != DType::fp64) grouped.out_dtype = DType::fp32;
    Problem repeated = grouped;
    repeated.heads_kv = grouped.heads_q;
    const std::int64_t group = grouped.heads_q / grouped.heads_kv;
    const verify::DataOptions options = any_data();
    for (const std::string& row : rows_for({grouped, repeated})) {
      verify::CaseData one(grouped, cpu(2), options), other(repeated, cpu(2), options);
      for (const char* name : {"k", "v"}) {
        const verify::Tensor& from = one.tensor(name);
        const std::int64_t dim = from.row_elements();
        const Values values = from.values();
        Values many;
        for (std::int64_t r = 0; r < from.rows(); ++r) {
          for (std::int64_t g = 0; g < group; ++g) {
            many.insert(many.end(), values.begin() + r * dim, values.begin() + (r + 1) * dim);
          }
        }
        other.tensor(name).set_values(many);
      }
      const Outputs a = run_row(one, row), b = run_row(other, row);
      for (const auto& [name, tensor] : a) {
        Values values = b.at(name).values();
        if (name == "dk" || name == "dv") {
          const std::int64_t dim = tensor.row_elements();
          Values sums(static_cast<std::size_t>(tensor.elements()), 0);
          for (std::int64_t i = 0; i < static_cast<std::int64_t>(values.size()); ++i) {
            sums[static_cast<std::size_t>(i / dim / group * dim + i % dim)] += values[static_cast<std::size_t>(i)];
          }
          values = sums;
        }
        require_near(row, name, tensor.values(), values, grouped.dtype);
      }
    }
  });
}

TEST(NumericsProperties, EqualValuesComeOutUnchanged) {
  holds("v_j = c for all j gives o_i = c wherever a key is visible", [] {
    Problem p = small_problem(Pass::forward);
    p.mask = any_band();
    any_score(p);
    p.sinks = false;  // a sink takes weight from the values
    const double value = static_cast<double>(in_range(-64, 64)) / 8;
    for (const std::string& row : rows_for({p})) {
      verify::CaseData data(p, cpu(2), any_data());
      data.tensor("v").set_values(Values(static_cast<std::size_t>(data.tensor("v").elements()), value));
      const Outputs outputs = run_row(data, row);
      for (const double o : outputs.at("o").values()) {
        RC_ASSERT(o == 0 || near(o, value, tolerance(row, p.dtype, std::fabs(value))));
      }
    }
  });
}

// Any row of gradients of the scores sums to what the row's lse receives: with neither dlse nor sink, to 0.
TEST(NumericsProperties, GradientOfABiasPerQueryIsTheGradientOfLse) {
  holds("sum over keys of dS == dlse", [] {
    Problem p = small_problem(Pass::backward);
    if (p.dtype == DType::bf16 || p.dtype == DType::fp16) p.dtype = DType::fp32;  // the sum cancels
    p.mask = any_band();
    p.score.bias = Bias{.batch = true, .heads = true, .queries = true};
    p.dbias = p.dlse = true;
    for (const std::string& row : rows_for({p})) {
      verify::CaseData data(p, cpu(2), any_data());
      const Outputs outputs = run_row(data, row);
      const Values dbias = outputs.at("dbias").values(), dlse = data.tensor("dlse").values();
      const Values lse = data.tensor("lse").values();
      for (std::size_t i = 0; i < dbias.size(); ++i) {
        RC_ASSERT(near(dbias[i], std::isinf(lse[i]) ? 0 : dlse[i], 2e-4));
      }
    }
  });
}

}  // namespace
}  // namespace fattn::properties
