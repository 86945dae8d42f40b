// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "fattn/plan.hpp"
#include "text.hpp"
#include "timer.hpp"
#include "verify/check.hpp"

namespace fattn::tool {

// One pass over the file's data: what came out, how fast, how far from the fp64 oracle.
struct PassResult {
  Plan plan;
  std::deque<verify::Tensor> outputs;
  std::optional<verify::CheckResult> check;  // of the same row on the same data; empty when it was not asked for
  Timing timing;

  std::string_view name() const { return to_string(plan.problem().pass); }
  bool pass() const { return !check || check->pass; }
  const verify::Tensor& output(const std::string& name) const;
};

// `kernel`: what made the plan of the problem. `forward`: the results that a backward pass reads; null for a forward
// pass. `checked`: compare with the oracle.
PassResult run_pass(verify::CaseData& inputs, const Plan& plan, const std::string& kernel, const PassResult* forward,
                    bool checked, Progress& progress);

}  // namespace fattn::tool
