// SPDX-License-Identifier: Apache-2.0
#include "algebra/dropout.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace fattn {
namespace {

// Known answers of the Random123 library, kat_vectors, "philox4x32 10".
TEST(Philox, PublishedVectors) {
  struct {
    std::uint32_t counter[4], key[2], words[4];
  } const known[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto& [c, k, words] : known) {
    const PhiloxWords result = philox(c[0], c[1], c[2], c[3], k[0], k[1]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(result.word[i], words[i]) << i;
  }
}

// docs/numerics.md, "Dropout", word for word.
std::uint32_t word_of(std::uint64_t seed, std::uint64_t offset, std::uint32_t slice, std::uint32_t i, std::uint32_t j) {
  const auto low32 = [](std::uint64_t x) { return static_cast<std::uint32_t>(x & 0xffffffffu); };
  const auto high32 = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  const PhiloxWords w = philox((i / 16) * 8 + i % 8, (j / 16) * 8 + j % 8, slice, low32(offset), low32(seed),
                               high32(seed) ^ high32(offset));
  return w.word[2 * ((i / 8) % 2) + (j / 8) % 2];
}

TEST(Dropout, WordsAreThoseOfTheContract) {
  const std::uint64_t seed = 0x0123456789abcdef, offset = 0xfedcba9876543210;
  const DropoutWords words = DropoutWords::of(seed, offset, 77);
  for (const int i : {0, 1, 7, 8, 15, 16, 23, 24, 31, 1000000, 1073741822}) {
    for (const int j : {0, 5, 8, 9, 16, 25, 63, 1073741822}) {
      EXPECT_EQ(words.word(i, j),
                word_of(seed, offset, 77, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j)));
    }
  }
}

// Every part of seed, offset, slice and position changes words, and a call's four words go to four pairs.
TEST(Dropout, NoTwoPairsShareAWord) {
  std::set<std::uint32_t> seen;
  std::size_t drawn = 0;
  for (const std::uint64_t seed : {std::uint64_t{5}, std::uint64_t{5} << 32}) {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{3}, std::uint64_t{9} << 32}) {
      for (const std::uint32_t slice : {0u, 1u}) {
        const DropoutWords words = DropoutWords::of(seed, offset, slice);
        for (int i = 0; i < 40; ++i) {
          for (int j = 0; j < 40; ++j, ++drawn) seen.insert(words.word(i, j));
        }
      }
    }
  }
  // 19200 words of 2^32: one meeting is expected in 23 such sets.
  EXPECT_GE(seen.size() + 1, drawn);
}

TEST(Dropout, ThresholdAndFactor) {
  EXPECT_EQ(DropoutRule::of(0).threshold, 0u);
  EXPECT_EQ(DropoutRule::of(0).factor, 1.0f);
  EXPECT_EQ(DropoutRule::of(0.5).threshold, 0x80000000u);
  EXPECT_EQ(DropoutRule::of(0.5).factor, 2.0f);
  EXPECT_EQ(DropoutRule::of(0.1).threshold, 429496730u);  // 429496729.6
  EXPECT_EQ(DropoutRule::of(0.1).factor, static_cast<float>(1 / (1 - 0.1)));
  EXPECT_EQ(DropoutRule::of(0.5 * 0x1p-32).threshold, 0u);  // ties go to even
  EXPECT_EQ(DropoutRule::of(1.5 * 0x1p-32).threshold, 2u);
  EXPECT_EQ(DropoutRule::of(std::nextafter(1.0, 0.0)).threshold, 4294967295u);
}

TEST(Dropout, DropsAsManyAsItSays) {
  for (const double p : {0.1, 0.5, 0.9}) {
    const DropoutRule rule = DropoutRule::of(p);
    const DropoutWords words = DropoutWords::of(42, 0, 3);
    int dropped = 0;
    for (int i = 0; i < 200; ++i) {
      for (int j = 0; j < 200; ++j) dropped += words.word(i, j) < rule.threshold ? 1 : 0;
    }
    EXPECT_NEAR(dropped / 40000.0, p, 4 * std::sqrt(p * (1 - p) / 40000)) << p;
  }
}

}  // namespace
}  // namespace fattn
