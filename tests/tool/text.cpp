// SPDX-License-Identifier: Apache-2.0
#include "text.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace fattn::tool {
namespace {

TEST(Text, Units) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(999), "999 B");
  EXPECT_EQ(bytes_text(1024), "1.00 KiB");
  EXPECT_EQ(bytes_text(3.5 * (1 << 20)), "3.50 MiB");
  EXPECT_EQ(bytes_text(80.0 * (1 << 30)), "80.0 GiB");
  EXPECT_EQ(time_text(0.25), "250 ns");
  EXPECT_EQ(time_text(12.34), "12.3 us");
  EXPECT_EQ(time_text(1234), "1.23 ms");
  EXPECT_EQ(time_text(5.5e6), "5.50 s");
  EXPECT_EQ(count_text(7, "FLOP"), "7 FLOP");
  EXPECT_EQ(count_text(4.83e9, "FLOP/s"), "4.83 GFLOP/s");
  EXPECT_EQ(count_text(999.9e9, "FLOP"), "1.00 TFLOP");
  EXPECT_EQ(error_text(0.00123), "1.2e-03");
  EXPECT_EQ(ratio_text(0.0417), "0.042x");
  EXPECT_EQ(ratio_text(HUGE_VAL), "-");
}

TEST(Text, TableAlignsItsColumns) {
  Table table({{"name", Align::left}, {"size", Align::right}});
  table.row({"a", "1"});
  table.row({"longer", "12345"});
  EXPECT_EQ(table.text(),
            "  name     size\n"
            "  a           1\n"
            "  longer  12345\n");
  EXPECT_EQ(Table({{"", Align::left}}).text(), "");
}

TEST(Text, FactsAlignTheirValues) {
  Facts facts;
  facts.add("a", "1");
  facts.add("long key", "2");
  EXPECT_EQ(facts.text(), "a         1\nlong key  2\n");
}

}  // namespace
}  // namespace fattn::tool
