// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "fattn/fattn.hpp"
#include "verify/case_line.hpp"
#include "verify/check.hpp"

// Where the tests of extremes.cpp run, which is defined once for each kind of device, and what they share.
namespace fattn {

Device extremes_device();
std::vector<std::string> extremes_rows(const std::string& line);  // that accept the problem
std::string extremes_absent();                                    // why there is no such device, or nothing

inline std::vector<verify::Tensor> outputs_of(verify::CaseData& data, const std::string& row) {
  data.place();
  verify::CaseOutputs outputs(data.problem(), data.device());
  Buffers buffers = data.placed();
  outputs.attach(buffers);
  verify::run_plan(plan(data.problem(), data.device(), row), buffers);
  outputs.fetch();
  return {outputs.tensors().begin(), outputs.tensors().end()};
}

inline verify::CaseData drawn(const std::string& line) {
  const verify::Case one = verify::parse_case(line);
  return verify::CaseData(one.problem, extremes_device(), one.data);
}

class Extremes : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = extremes_absent(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

}  // namespace fattn
