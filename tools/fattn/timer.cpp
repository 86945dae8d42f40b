// SPDX-License-Identifier: Apache-2.0
#include "timer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>
#include <thread>
#include <utility>

#include "simd.hpp"

namespace fattn::tool {

namespace {

using Clock = std::chrono::steady_clock;

double elapsed_us(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

class CpuBurst final : public Burst {
 public:
  CpuBurst(const Device& device, std::function<void(Stream)> call, CpuUnit unit)
      : threads_(device.threads), unit_(unit), call_(std::move(call)) {
    call_({});  // warm caches, start threads
    const Clock::time_point begin = Clock::now();
    call_({});
    calls_ = static_cast<int>(std::clamp(kBurstMs * 1e3 / std::max(elapsed_us(begin), 1.0), 1.0, double{kMostCalls}));
  }

  Sample sample() override {
    const std::optional<double> before = cpu_peak_tflops(threads_, unit_);
    std::this_thread::sleep_for(std::chrono::milliseconds(kIdleMs));
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < calls_; ++i) call_({});
    Sample sample;
    sample.us = elapsed_us(begin) / calls_;
    if (before) {
      const double after = cpu_peak_tflops(threads_, unit_).value_or(*before);
      sample.peak_tflops = (*before + after) / 2;
      sample.steady = std::abs(*before - after) <= 0.1 * std::max(*before, after);
    }
    return sample;
  }

 private:
  int threads_;
  CpuUnit unit_;
  std::function<void(Stream)> call_;
  int calls_ = 1;
};

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::unique_ptr<Burst> burst(const Device& device, std::function<void(Stream)> call, std::string_view kernel) {
  if (device.kind == DeviceKind::cuda) return cuda_burst(device, call);
  return std::make_unique<CpuBurst>(device, std::move(call), cpu_unit(kernel));
}

std::vector<Timing> time_in_turn(const std::vector<std::unique_ptr<Burst>>& bursts, int samples, std::uint64_t seed) {
  std::vector<std::vector<Sample>> taken(bursts.size());
  std::mt19937_64 random(seed);
  std::vector<std::size_t> order(bursts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (int round = 0; round < samples; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t i : order) taken[i].push_back(bursts[i]->sample());
  }
  std::vector<Timing> timings;
  for (const std::vector<Sample>& all : taken) {
    std::vector<double> us, clocks, peaks;
    const bool only_steady = std::count_if(all.begin(), all.end(), [](const Sample& each) { return each.steady; }) >= 3;
    for (const Sample& sample : all) {
      if (only_steady && !sample.steady) continue;
      us.push_back(sample.us);
      if (sample.sm_clock_mhz) clocks.push_back(*sample.sm_clock_mhz);
      if (sample.peak_tflops) peaks.push_back(*sample.peak_tflops);
    }
    Timing& timing = timings.emplace_back();
    timing.median_us = median(us);
    timing.min_us = *std::min_element(us.begin(), us.end());
    if (!clocks.empty()) timing.sm_clock_mhz = median(clocks);
    if (!peaks.empty()) timing.peak_tflops = median(peaks);
  }
  return timings;
}

}  // namespace fattn::tool
