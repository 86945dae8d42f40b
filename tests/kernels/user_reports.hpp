// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "verify/case_line.hpp"
#include "verify/check.hpp"

namespace fattn::verify {

// The lines of user_reports.txt as test parameters.
inline std::vector<Case> user_reports() { return read_cases(FATTN_SOURCE_DIR "/tests/kernels/user_reports.txt"); }

// Oracles are left out: they are what rows are held to.
inline std::vector<std::string> rows_for(const Problem& problem, const Device& device) {
  std::vector<std::string> rows;
  for (const RowAnswer& row : row_answers(problem, device)) {
    if (row.reason.empty() && !row.by_name_only) rows.push_back(row.kernel);
  }
  return rows;
}

// Every row of the device that accepts the case; the number of them.
inline std::size_t check_rows(const Case& one, const Device& device) {
  const std::vector<std::string> rows = rows_for(one.problem, device);
  for (const std::string& row : rows) {
    const CheckResult result = check(one.problem, device, row, {.data = one.data});
    EXPECT_TRUE(result.pass) << result.table();
  }
  return rows.size();
}

inline void PrintTo(const Case& one, std::ostream* to) { *to << to_line(one); }

class UserReports : public testing::TestWithParam<Case> {};

inline std::string test_name(const testing::TestParamInfo<Case>& info) {
  return "Case" + std::to_string(info.index + 1);
}

}  // namespace fattn::verify
