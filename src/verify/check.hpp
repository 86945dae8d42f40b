// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fattn/attention.hpp"
#include "verify/case_data.hpp"
#include "verify/compare.hpp"
#include "verify/oracle.hpp"

namespace fattn::verify {

struct CheckOptions {
  DataOptions data;
  int runs = 2;  // with one workspace: the second run sees what the first left there
};

// One output of one row beside the yardstick.
struct OutputCheck {
  std::string name;
  Distance error;  // against the fp64 oracle
  Distance naive;  // the same of the same-precision naive computation
  Bound bound;
  bool pass = false;
};

struct CheckResult {
  Problem problem;
  DataOptions data;
  std::string kernel;
  std::vector<OutputCheck> outputs;
  std::string damage;  // what was written that must not be, or bits that changed from run to run; empty: nothing
  bool pass = false;

  std::string line() const;   // the case line that reproduces it: problem, data options and seed
  std::string table() const;  // for a person
};

// Checks rows on one case: the data, the oracle's results and the yardstick are made once.
class Judge {
 public:
  // The data as the caller has drawn or filled them; for a backward the forward's results are computed here. They must
  // outlive the judge and not change.
  explicit Judge(CaseData& data);
  // Runs the row and compares. Throws Error for a row that declines and for devices that fail.
  CheckResult check(std::string_view kernel, int runs = 2);

 private:
  CaseData& data_;
  CaseOutputs exact_;
  std::vector<Distance> naive_;
  std::vector<Magnitude> magnitudes_;
};

// One row on data drawn from the options, or on data of the caller's.
CheckResult check(const Problem& problem, const Device& device, std::string_view kernel,
                  const CheckOptions& options = {});
CheckResult check(CaseData& data, std::string_view kernel, int runs = 2);

// Every row of the device's kind and the problem's pass, in order, and why it does not serve: "" where it does.
struct RowAnswer {
  std::string kernel;
  bool by_name_only = false;
  std::string reason;
};
std::vector<RowAnswer> row_answers(const Problem& problem, const Device& device);
std::vector<std::string> accepting_rows(const Problem& problem, const Device& device);

// Runs a plan on buffers of its device with a workspace of its own, `runs` times, and waits for the end.
void run_plan(const Plan& plan, const Buffers& buffers, int runs = 1, Executor* executor = nullptr,
              const std::function<void(int)>& after_each = {});

}  // namespace fattn::verify
