// SPDX-License-Identifier: Apache-2.0
#include "timer.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace fattn::tool {
namespace {

// Gives samples that are known beforehand.
class Script final : public Burst {
 public:
  explicit Script(std::vector<Sample> samples) : samples_(std::move(samples)) {}
  Sample sample() override { return samples_[next_++]; }

 private:
  std::vector<Sample> samples_;
  std::size_t next_ = 0;
};

Sample sample(double us, double peak, bool steady) {
  Sample s;
  s.us = us;
  s.peak_tflops = peak;
  s.steady = steady;
  return s;
}

TEST(Timer, MedianAndLeast) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  std::vector<std::unique_ptr<Burst>> bursts;
  bursts.push_back(
      std::make_unique<Script>(std::vector<Sample>{sample(5, 1, true), sample(3, 2, true), sample(9, 3, true)}));
  bursts.push_back(
      std::make_unique<Script>(std::vector<Sample>{sample(1, 1, true), sample(1, 1, true), sample(1, 1, true)}));
  const std::vector<Timing> timings = time_in_turn(bursts, 3, 1);
  ASSERT_EQ(timings.size(), 2U);
  EXPECT_EQ(timings[0].median_us, 5);
  EXPECT_EQ(timings[0].min_us, 3);
  EXPECT_EQ(timings[0].peak_tflops, 2);
  EXPECT_FALSE(timings[0].sm_clock_mhz.has_value());
  EXPECT_EQ(timings[1].median_us, 1);
}

TEST(Timer, UnsteadySamplesAreLeftOutWhereThreeOthersRemain) {
  const auto timed = [](const std::vector<Sample>& samples) {
    std::vector<std::unique_ptr<Burst>> bursts;
    bursts.push_back(std::make_unique<Script>(samples));
    return time_in_turn(bursts, static_cast<int>(samples.size()), 1).front();
  };
  EXPECT_EQ(timed({sample(1, 1, false), sample(5, 1, true), sample(6, 1, true), sample(7, 1, true)}).min_us, 5);
  EXPECT_EQ(timed({sample(1, 1, false), sample(5, 1, true), sample(6, 1, true)}).min_us, 1);
}

TEST(Timer, TimesACall) {
  const std::unique_ptr<Burst> slow =
      burst(cpu(1), [](Stream) { std::this_thread::sleep_for(std::chrono::milliseconds(2)); });
  const Sample taken = slow->sample();
  EXPECT_GE(taken.us, 2000);
  EXPECT_LT(taken.us, 200'000);
  EXPECT_EQ(taken.peak_tflops.has_value(), cpu().avx2);
}

}  // namespace
}  // namespace fattn::tool
