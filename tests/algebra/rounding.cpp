// SPDX-License-Identifier: Apache-2.0
#include "algebra/rounding.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace fattn {
namespace {

static_assert(bf16_from_float(1.0f) == 0x3f80 && float_from_bf16(0xc000) == -2.0f);
static_assert(fp16_from_float(1.0f) == 0x3c00 && float_from_fp16(0x0001) == 0x1p-24f);
static_assert(e4m3_from_float(448.0f) == 0x7e && float_from_e4m3(0x01) == 0x1p-9f);

// One format: its conversions, its positive finite patterns 0 ... last, and what follows the last.
template <class Bits>
struct Format {
  const char* name;
  Bits (*narrow)(float);
  float (*widen)(Bits);
  Bits last_finite;
  Bits sign;
  Bits overflow;  // of what rounds beyond the last
};
const Format<std::uint16_t> kBf16{"bf16", bf16_from_float, float_from_bf16, 0x7f7f, 0x8000, 0x7f80};
const Format<std::uint16_t> kFp16{"fp16", fp16_from_float, float_from_fp16, 0x7bff, 0x8000, 0x7c00};
const Format<std::uint8_t> kE4m3{"e4m3", e4m3_from_float, float_from_e4m3, 0x7e, 0x80, 0x7e};

template <class Bits>
void every_pattern_survives(const Format<Bits>& format) {
  for (unsigned pattern = 0; pattern <= std::numeric_limits<Bits>::max(); ++pattern) {
    const Bits bits = static_cast<Bits>(pattern);
    const float value = format.widen(bits);
    const Bits magnitude = static_cast<Bits>(bits & ~format.sign);
    if (std::isnan(value)) {
      ASSERT_GT(magnitude, format.last_finite) << format.name << " " << pattern;
      ASSERT_TRUE(std::isnan(format.widen(format.narrow(value)))) << format.name << " " << pattern;
    } else {
      ASSERT_EQ(format.narrow(value), bits) << format.name << " " << pattern;
      ASSERT_EQ(std::signbit(value), (bits & format.sign) != 0) << format.name << " " << pattern;
    }
  }
}

TEST(Rounding, EveryPatternSurvivesTheWayToFp32AndBack) {
  every_pattern_survives(kBf16);
  every_pattern_survives(kFp16);
  every_pattern_survives(kE4m3);
}

// Between each two neighbours: the middle goes to the even one, a little to either side goes to that side; from fp32,
// and from fp64 where "a little" is far below what fp32 can tell.
template <class Bits>
void every_gap_rounds_to_nearest_even(const Format<Bits>& format) {
  for (unsigned pattern = 0; pattern < format.last_finite; ++pattern) {
    const Bits low = static_cast<Bits>(pattern), high = static_cast<Bits>(pattern + 1);
    const Bits even = pattern % 2 == 0 ? low : high;
    const double middle = (static_cast<double>(format.widen(low)) + static_cast<double>(format.widen(high))) / 2;
    const float exact = static_cast<float>(middle);  // one bit more than the format has
    ASSERT_EQ(static_cast<double>(exact), middle);
    const auto both_signs = [&](float value, Bits expected) {
      ASSERT_EQ(format.narrow(value), expected) << format.name << " " << value;
      ASSERT_EQ(format.narrow(-value), expected | format.sign) << format.name << " " << -value;
    };
    both_signs(exact, even);
    both_signs(std::nextafter(exact, 0.0f), low);
    both_signs(std::nextafter(exact, INFINITY), high);
    both_signs(round_to_odd(middle), even);
    both_signs(round_to_odd(std::nextafter(middle, 0.0)), low);
    both_signs(round_to_odd(std::nextafter(middle, INFINITY)), high);
  }
}

TEST(Rounding, EveryGapRoundsToNearestEven) {
  every_gap_rounds_to_nearest_even(kBf16);
  every_gap_rounds_to_nearest_even(kFp16);
  every_gap_rounds_to_nearest_even(kE4m3);
}

template <class Bits>
void overflow_and_specials(const Format<Bits>& format) {
  const double last = static_cast<double>(format.widen(format.last_finite));
  const double before = static_cast<double>(format.widen(static_cast<Bits>(format.last_finite - 1)));
  const double limit = last + (last - before) / 2;  // half way to what would come next; its even neighbour is above
  EXPECT_EQ(format.narrow(std::nextafter(static_cast<float>(limit), 0.0f)), format.last_finite) << format.name;
  EXPECT_EQ(format.narrow(static_cast<float>(limit)), format.overflow) << format.name;
  EXPECT_EQ(format.narrow(std::numeric_limits<float>::max()), format.overflow) << format.name;
  EXPECT_EQ(format.narrow(INFINITY), format.overflow) << format.name;
  EXPECT_EQ(format.narrow(-INFINITY), format.overflow | format.sign) << format.name;
  EXPECT_EQ(format.narrow(0.0f), 0) << format.name;
  EXPECT_EQ(format.narrow(-0.0f), format.sign) << format.name;
  EXPECT_EQ(format.narrow(std::numeric_limits<float>::denorm_min()), 0) << format.name;
  EXPECT_TRUE(std::isnan(format.widen(format.narrow(NAN)))) << format.name;
}

TEST(Rounding, OverflowAndSpecials) {
  overflow_and_specials(kBf16);
  overflow_and_specials(kFp16);
  overflow_and_specials(kE4m3);
  // A NaN whose payload lies below the bits that are kept must not turn into infinity.
  EXPECT_TRUE(std::isnan(float_from_bf16(bf16_from_float(detail::float_of(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(float_from_fp16(fp16_from_float(detail::float_of(0xff800001u)))));
}

TEST(Rounding, RoundToOddKeepsFloatsAndMarksTheRest) {
  for (const double x : {0.0, -0.0, 1.0, -1.5, 0x1p-149, 3.4028234663852886e38, static_cast<double>(INFINITY)}) {
    EXPECT_EQ(static_cast<double>(round_to_odd(x)), x);
  }
  EXPECT_TRUE(std::isnan(round_to_odd(NAN)));
  for (const double x : {0.1, -0.1, 1e-300, -1e-300, 1.0 + 0x1p-40, 1e300, -1e300, 16777217.0}) {
    const float odd = round_to_odd(x);
    EXPECT_EQ(detail::bits_of(odd) & 1u, 1u) << x;
    EXPECT_TRUE(std::isfinite(odd)) << x;
    EXPECT_EQ(std::signbit(odd), std::signbit(x)) << x;
  }
}

}  // namespace
}  // namespace fattn
