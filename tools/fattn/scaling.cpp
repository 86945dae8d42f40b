// SPDX-License-Identifier: Apache-2.0
#include "scaling.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "arguments.hpp"
#include "data.hpp"
#include "standard_attention.hpp"
#include "timer.hpp"

namespace fattn::tool {

namespace {

constexpr std::int64_t kShortest = 256;
constexpr int kSamples = 3;
constexpr double kLongestCallMs = 1200;

double free_memory() {
  return static_cast<double>(::sysconf(_SC_AVPHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

double time_ms(const Device& device, std::function<void(Stream)> call) {
  std::vector<std::unique_ptr<Burst>> bursts;
  bursts.push_back(burst(device, std::move(call)));
  return time_in_turn(bursts, kSamples, 1).front().median_us / 1e3;
}

}  // namespace

std::vector<ScalingPoint> measure_scaling(const Problem& problem, const Device& device, std::int64_t longest,
                                          Progress& progress) {
  std::vector<ScalingPoint> points;
  double last_ms = 0, last_standard_ms = 0;
  for (std::int64_t seqlen = kShortest; seqlen <= longest && last_ms * 4 < kLongestCallMs; seqlen *= 2) {
    progress.show(fmt::format("time and memory at {} tokens", seqlen));
    Problem p = problem;
    p.seqlen_q = p.seqlen_k = seqlen;
    p.strides = {};
    validate(p);
    const Plan chosen = plan(p, device);
    verify::CaseData inputs(p, device);
    const DeviceData data(chosen, inputs);
    last_ms = time_ms(device, [&data](Stream stream) { data.run(stream); });
    points.push_back({seqlen, "fattn", last_ms, static_cast<double>(data.bytes())});

    if (!StandardAttention::serves(p)) continue;
    ScalingPoint standard{seqlen, "standard", std::nullopt, StandardAttention::bytes(p)};
    const bool small = standard.bytes < free_memory() / 2 && last_standard_ms * 4 < 2 * kLongestCallMs;
    if (device.kind == DeviceKind::cpu && small) {
      StandardAttention attention(inputs, device.threads);
      standard.time_ms = last_standard_ms = time_ms(device, [&attention](Stream) { attention.run(); });
    }
    points.push_back(standard);
  }
  progress.clear();
  return points;
}

std::string scaling_lines(const std::vector<ScalingPoint>& points) {
  std::string lines;
  for (const ScalingPoint& point : points) {
    const Json line = {{"seqlen", point.seqlen},
                       {"impl", point.impl},
                       {"time_ms", point.time_ms ? Json(*point.time_ms) : Json()},
                       {"bytes", static_cast<std::int64_t>(point.bytes)},
                       {"direction", "forward"}};
    lines += line.dump() + '\n';
  }
  return lines;
}

}  // namespace fattn::tool
