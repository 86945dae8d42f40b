// SPDX-License-Identifier: Apache-2.0
#include "kernels/user_reports.hpp"

namespace fattn::verify {
namespace {

TEST_P(UserReports, EveryRowAgreesWithTheOracle) {
  // A portable row takes every one of them, so that no line is there for nothing.
  EXPECT_GE(check_rows(GetParam(), cpu()), 1U) << to_line(GetParam()) << ": no row accepts";
}

INSTANTIATE_TEST_SUITE_P(Cpu, UserReports, testing::ValuesIn(user_reports()), test_name);

}  // namespace
}  // namespace fattn::verify
