// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "fattn/attention.hpp"

// How things are timed: bursts of calls of about 6 ms, each after 12 ms of idling, what is compared in random order,
// the median of the samples (docs/benchmarks.md, "Protocol").
namespace fattn::tool {

inline constexpr double kBurstMs = 6;
inline constexpr int kIdleMs = 12;
inline constexpr int kMostCalls = 40;

struct Sample {
  double us = 0;                       // one call
  std::optional<double> sm_clock_mhz;  // CUDA: while the burst ran, where the driver tells
  std::optional<double> peak_tflops;   // CPU: measured just before and after
  bool steady = true;                  // CPU: those two agree
};

class Burst {
 public:
  virtual ~Burst() = default;
  virtual Sample sample() = 0;
};

// CPU: a loop; the kernel's name says whose peak is measured. CUDA: one graph of the calls, so that no launch is waited
// for (cuda_timer_cuda.cpp, or cuda_timer_none.cpp where the build has no CUDA).
std::unique_ptr<Burst> burst(const Device& device, std::function<void(Stream)> call, std::string_view kernel = {});
std::unique_ptr<Burst> cuda_burst(const Device& device, const std::function<void(Stream)>& call);

struct Timing {
  double median_us = 0;
  double min_us = 0;
  std::optional<double> sm_clock_mhz;
  std::optional<double> peak_tflops;
};

// One Timing for each burst: every round samples all of them in random order. Samples between two unlike peaks are left
// out where three others remain.
std::vector<Timing> time_in_turn(const std::vector<std::unique_ptr<Burst>>& bursts, int samples, std::uint64_t seed);

double median(std::vector<double> values);

}  // namespace fattn::tool
