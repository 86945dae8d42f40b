// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "fattn/fattn.hpp"
#include "verify/case_line.hpp"
#include "verify/check.hpp"

namespace fattn {

// The forward problem whose gradients a backward problem asks for.
inline Problem forward_of(Problem problem) {
  problem.pass = Pass::forward;
  problem.return_lse = true;
  problem.dlse = problem.dbias = problem.dsink = false;
  problem.strides.dout = problem.strides.dq = problem.strides.dk = problem.strides.dv = std::nullopt;
  return problem;
}

// Runs one row of this room on the masters.
inline verify::CaseOutputs run_row(const verify::CaseData& data, const std::string& row) {
  verify::CaseOutputs outputs(data.problem(), cpu(1));
  Buffers buffers = data.masters();
  outputs.attach(buffers);
  verify::run_plan(plan(data.problem(), cpu(1), row), buffers);
  outputs.fetch();
  return outputs;
}

}  // namespace fattn
