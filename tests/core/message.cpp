// SPDX-License-Identifier: Apache-2.0
#include "core/message.hpp"

#include <gtest/gtest.h>

#include <array>

#include "fattn/attention.hpp"

namespace fattn {
namespace {

TEST(Message, NearestWord) {
  const std::array<std::string_view, 4> words = {"causal", "chunk", "sinks", "softcap"};
  EXPECT_EQ(nearest_word("casual", words), "causal");
  EXPECT_EQ(nearest_word("chunks", words), "chunk");
  EXPECT_EQ(nearest_word("sotfcap", words), "softcap");
  EXPECT_EQ(nearest_word("", words), "chunk");  // the shortest, first
  EXPECT_EQ(nearest_word("x", {}), "");
  EXPECT_FALSE(nearest_word(std::string(1 << 20, 'z'), words).empty());  // in reasonable time
}

TEST(Message, QuotedIsShortAndPrintable) {
  EXPECT_EQ(in_quotes("causal"), "'causal'");
  EXPECT_EQ(in_quotes("a\nb\x1b;\xff"), "'a?b?;?'");
  EXPECT_EQ(in_quotes(std::string(100, 'a')), "'" + std::string(40, 'a') + "...'");
}

TEST(Message, EveryStatusHasItsOwnName) {
  std::vector<std::string> names;
  for (int i = 0; i <= static_cast<int>(Status::internal_error); ++i) {
    names.emplace_back(to_string(static_cast<Status>(i)));
    for (int j = 0; j < i; ++j) EXPECT_NE(names[static_cast<std::size_t>(j)], names.back());
  }
  EXPECT_STREQ(to_string(Status::workspace_too_small), "workspace_too_small");
  EXPECT_STREQ(to_string(static_cast<Status>(99)), "unknown status");
}

TEST(Message, VersionIsTheProjects) {
  const Version v = version();
  EXPECT_EQ(fmt::format("{}.{}.{}", v.major, v.minor, v.patch), FATTN_PROJECT_VERSION);
}

}  // namespace
}  // namespace fattn
