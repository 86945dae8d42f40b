// SPDX-License-Identifier: Apache-2.0
#include "algebra/softmax_state.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace fattn {
namespace {

using State = SoftmaxState<double>;

double exp_of(double x) { return std::exp(x); }

// A state with its partial output, as users of merge() hold them.
struct Partial {
  State state = State::empty();
  double out = 0;  // weighted sum of values
};

Partial merged(Partial a, const Partial& b) {
  const MergeFactors<double> factors = merge(a.state, b.state, exp_of);
  a.out = factors.a * a.out + factors.b * b.out;
  return a;
}

Partial of(double score, double value) { return {{score, 1}, value}; }

std::vector<Partial> draw(int count, double spread) {
  std::mt19937 engine(7);
  std::normal_distribution<double> normal;
  std::vector<Partial> parts;
  for (int i = 0; i < count; ++i) parts.push_back(of(spread * normal(engine), normal(engine)));
  return parts;
}

void expect_near(const Partial& a, const Partial& b) {
  EXPECT_EQ(a.state.max, b.state.max);
  EXPECT_NEAR(a.state.sum, b.state.sum, 1e-13 * b.state.sum);
  EXPECT_NEAR(a.out, b.out, 1e-13 * (std::fabs(b.out) + b.state.sum));
}

TEST(SoftmaxState, MergeIsCommutativeBitByBit) {
  for (const double spread : {1.0, 30.0, 1000.0}) {
    const std::vector<Partial> parts = draw(100, spread);
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const Partial ab = merged(parts[i], parts[i + 1]), ba = merged(parts[i + 1], parts[i]);
      EXPECT_EQ(ab.state.max, ba.state.max);
      EXPECT_EQ(ab.state.sum, ba.state.sum);
      EXPECT_EQ(ab.out, ba.out);
    }
  }
}

TEST(SoftmaxState, MergeIsAssociative) {
  for (const double spread : {1.0, 30.0, 1000.0}) {
    const std::vector<Partial> parts = draw(90, spread);
    for (std::size_t i = 0; i + 2 < parts.size(); ++i) {
      expect_near(merged(merged(parts[i], parts[i + 1]), parts[i + 2]),
                  merged(parts[i], merged(parts[i + 1], parts[i + 2])));
    }
  }
}

TEST(SoftmaxState, EmptyIsTheIdentityBitByBit) {
  for (const Partial& part : draw(50, 100)) {
    for (const Partial& same : {merged(part, Partial{}), merged(Partial{}, part)}) {
      EXPECT_EQ(same.state.max, part.state.max);
      EXPECT_EQ(same.state.sum, part.state.sum);
      EXPECT_EQ(same.out, part.out);
    }
  }
  const Partial nothing = merged(Partial{}, Partial{});
  EXPECT_EQ(nothing.state.max, -INFINITY);
  EXPECT_EQ(nothing.state.sum, 0);
  EXPECT_EQ(nothing.out, 0);
  // Whatever lies in the output of a side without keys: its factor is 0.
  SoftmaxState<double> state{3, 2};
  const auto factors = merge(state, SoftmaxState<double>::empty(), [](double x) { return std::exp(x); });
  EXPECT_EQ(factors.a, 1);
  EXPECT_EQ(factors.b, 0);
}

TEST(SoftmaxState, AnyTreeOfMergesIsTheSoftmax) {
  const std::vector<Partial> parts = draw(257, 20);
  double top = -INFINITY, sum = 0, out = 0;
  for (const Partial& part : parts) top = std::max(top, part.state.max);
  for (const Partial& part : parts) {
    sum += std::exp(part.state.max - top);
    out += std::exp(part.state.max - top) * part.out;
  }
  Partial chain;
  for (const Partial& part : parts) chain = merged(chain, part);
  expect_near(chain, {{top, sum}, out});
  std::vector<Partial> tree = parts;
  while (tree.size() > 1) {
    for (std::size_t i = 0; i < tree.size() / 2; ++i) tree[i] = merged(tree[2 * i], tree[2 * i + 1]);
    if (tree.size() % 2 == 1) tree[tree.size() / 2] = tree.back();
    tree.resize((tree.size() + 1) / 2);
  }
  expect_near(tree[0], {{top, sum}, out});
}

}  // namespace
}  // namespace fattn
