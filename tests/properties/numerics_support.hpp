// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fattn/fattn.hpp"
#include "verify/case_line.hpp"
#include "verify/check.hpp"

// Laws of attention that need no oracle: what must be equal when the question is put in another way.
namespace fattn::properties {

using Values = std::vector<double>;
using Outputs = std::map<std::string, verify::Tensor>;

// Runs one row on the data; a backward gets its o and lse first.
inline Outputs run_row(verify::CaseData& data, const std::string& row, const Device& device = cpu(2)) {
  if (data.problem().pass == Pass::backward) verify::add_forward(data);
  data.place();
  verify::CaseOutputs outputs(data.problem(), device);
  Buffers buffers = data.placed();
  outputs.attach(buffers);
  verify::run_plan(plan(data.problem(), device, row), buffers);
  outputs.fetch();
  Outputs named;
  for (const verify::Tensor& tensor : outputs.tensors()) named.emplace(tensor.name(), tensor);
  return named;
}

// Every CPU row that accepts all of the problems.
inline std::vector<std::string> rows_for(const std::vector<Problem>& problems) {
  std::vector<std::string> rows = verify::accepting_rows(problems.at(0), cpu(2));
  for (const Problem& problem : problems) {
    const std::vector<std::string> others = verify::accepting_rows(problem, cpu(2));
    std::erase_if(rows, [&](const auto& row) { return std::find(others.begin(), others.end(), row) == others.end(); });
  }
  return rows;
}

// What fp32 arithmetic, rounding to the dtype and the row's own order of sums may make of a value near `size`.
inline double tolerance(const std::string& row, DType dtype, double size) {
  if (row.ends_with("fp64") && dtype == DType::fp64) return 1e-12 * (1 + size);
  return (8 * verify::rounding_unit(dtype) + 4e-6) * (0.25 + size);
}

inline bool near(double a, double b, double tolerance) {
  return a == b || (std::isnan(a) && std::isnan(b)) || std::fabs(a - b) <= tolerance;
}

// Both are the same numbers; the message of the property names the first that is not.
inline void require_near(const std::string& row, const std::string& name, const Values& a, const Values& b,
                         DType dtype) {
  RC_ASSERT(a.size() == b.size());
  double size = 0;
  for (const double x : b) size = std::isfinite(x) ? std::max(size, std::fabs(x)) : size;
  // lse is fp32 whatever the inputs are, and a difference in it is one in the exponent.
  const double allowed = name == "lse" ? 4e-6 * (1 + size) : tolerance(row, dtype, size);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!near(a[i], b[i], allowed)) {
      RC_LOG() << row << " " << name << "[" << i << "]: " << a[i] << " and " << b[i] << ", allowed " << allowed;
      RC_FAIL("values differ");
    }
  }
}

inline void require_same_bits(const std::string& row, const Outputs& a, const Outputs& b) {
  RC_ASSERT(a.size() == b.size());
  for (const auto& [name, tensor] : a) {
    const Values x = tensor.values(), y = b.at(name).values();
    RC_ASSERT(x.size() == y.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (x[i] != y[i] && !(std::isnan(x[i]) && std::isnan(y[i]))) {
        RC_LOG() << row << " " << name << "[" << i << "]: " << x[i] << " and " << y[i];
        RC_FAIL("bits differ");
      }
    }
  }
}

inline std::int64_t in_range(std::int64_t low, std::int64_t high) { return *rc::gen::inRange(low, high + 1); }
inline DType any_dtype() { return *rc::gen::element(DType::fp64, DType::fp32, DType::bf16, DType::fp16); }

// A small dense problem; tiles of every row are crossed now and then.
inline Problem small_problem(Pass pass) {
  Problem p;
  p.pass = pass;
  p.dtype = any_dtype();
  p.batch = in_range(1, 3);
  p.heads_kv = in_range(1, 2);
  p.heads_q = p.heads_kv * in_range(1, 3);
  p.seqlen_q = in_range(1, *rc::gen::element<std::int64_t>(8, 40, 140));
  p.seqlen_k = in_range(1, *rc::gen::element<std::int64_t>(8, 40, 300));
  p.head_dim = in_range(1, 40);
  p.head_dim_v = in_range(1, 40);
  p.return_lse = pass == Pass::forward;
  return p;
}

inline Mask any_band() {
  Mask mask;
  mask.causal = *rc::gen::inRange(0, 2) == 0;
  mask.causal_top_left = *rc::gen::inRange(0, 4) == 0;
  if (*rc::gen::inRange(0, 2) == 0) mask.window_left = in_range(-1, 40);
  if (*rc::gen::inRange(0, 3) == 0) mask.window_right = in_range(-1, 40);
  if (*rc::gen::inRange(0, 4) == 0) mask.chunk = in_range(1, 50);
  return mask;
}

inline void any_score(Problem& p) {
  if (*rc::gen::inRange(0, 3) == 0) p.score.softcap = 5;
  if (*rc::gen::inRange(0, 3) == 0) p.score.alibi = Alibi::per_head;
  if (*rc::gen::inRange(0, 3) == 0) p.score.bias = Bias{.heads = true, .keys = true};
  p.sinks = *rc::gen::inRange(0, 3) == 0;
  p.dsink = p.pass == Pass::backward && p.sinks;
  p.dbias = p.pass == Pass::backward && p.score.bias.has_value();
}

inline verify::DataOptions any_data() { return {.seed = static_cast<std::uint64_t>(in_range(1, 1000000))}; }

// Runs a property; how many examples it takes can be set with RC_PARAMS.
inline void holds(const char* law, const std::function<void()>& property) {
  EXPECT_TRUE(rc::check(law, [&] { property(); })) << law;
}

}  // namespace fattn::properties
