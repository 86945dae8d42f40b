// SPDX-License-Identifier: Apache-2.0
#include "core/accelerator.hpp"
#include "kernels/user_reports.hpp"

namespace fattn::verify {
namespace {

TEST_P(UserReports, EveryRowAgreesWithTheOracle) {
  if (accelerator::devices().empty()) GTEST_SKIP() << "no GPU";
  if (check_rows(GetParam(), cuda()) == 0) GTEST_SKIP() << to_line(GetParam()) << ": no row accepts";
}

INSTANTIATE_TEST_SUITE_P(Cuda, UserReports, testing::ValuesIn(user_reports()), test_name);

}  // namespace
}  // namespace fattn::verify
