// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "fattn/fattn.hpp"

namespace fattn {

// One compiled row and one file of cases.
struct RowAndCases {
  std::string row;
  std::string cases;
};
void PrintTo(const RowAndCases& parameter, std::ostream* out);
std::vector<RowAndCases> rows_of(DeviceKind kind);
std::string name_of(const testing::TestParamInfo<RowAndCases>& info);

// Holds the row to the oracle on each case that it accepts.
class Rows : public testing::TestWithParam<RowAndCases> {
 protected:
  void agree_with_the_oracle(const Device& device);
};

}  // namespace fattn
