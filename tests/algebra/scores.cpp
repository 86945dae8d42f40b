// SPDX-License-Identifier: Apache-2.0
#include "algebra/scores.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace fattn {
namespace {

double tanh_of(double x) { return std::tanh(x); }

TEST(Scores, WithoutSoftcapOnlyTheScale) {
  const ModifiedScore<double> score{0.25, 0};
  for (const double raw : {-1000.0, -1.0, 0.0, 3.5, 1e30}) {
    EXPECT_EQ(score.capped(raw, tanh_of), 0.25 * raw);
    EXPECT_EQ(score.derivative(score.capped(raw, tanh_of)), 0.25);
  }
}

TEST(Scores, SoftcapBoundsAndKeepsSmallScores) {
  const ModifiedScore<double> score{2, 30};
  EXPECT_NEAR(score.capped(1e-4, tanh_of), 2e-4, 1e-12);
  EXPECT_LE(score.capped(1e6, tanh_of), 30);
  EXPECT_GE(score.capped(-1e6, tanh_of), -30);
  EXPECT_EQ(score.capped(7, tanh_of), 30 * std::tanh(14.0 / 30));
}

TEST(Scores, DerivativeIsTheDifferenceQuotient) {
  for (const double softcap : {0.0, 1.0, 5.0, 50.0}) {
    for (const double scale : {0.125, 1.0, -2.0}) {
      const ModifiedScore<double> score{scale, softcap};
      for (double raw = -40; raw <= 40; raw += 0.37) {
        const double h = 1e-5;
        const double quotient = (score.capped(raw + h, tanh_of) - score.capped(raw - h, tanh_of)) / (2 * h);
        EXPECT_NEAR(score.derivative(score.capped(raw, tanh_of)), quotient, 1e-8 * std::max(1.0, std::fabs(scale)))
            << softcap << " " << scale << " " << raw;
      }
    }
  }
}

TEST(Scores, AlibiFallsOnBothSidesOfTheDiagonal) {
  EXPECT_EQ(alibi(0.5, 10, 10), 0);
  EXPECT_EQ(alibi(0.5, 10, 7), -1.5);
  EXPECT_EQ(alibi(0.5, 10, 13), -1.5);
  EXPECT_EQ(alibi(0.5, -3, 1), -2.0);
  EXPECT_EQ(alibi(-1.0f, 2, 0), 2.0f);
}

}  // namespace
}  // namespace fattn
