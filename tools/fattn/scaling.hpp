// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fattn/device.hpp"
#include "fattn/problem.hpp"
#include "text.hpp"

namespace fattn::tool {

// Time and memory at one sequence length, ours or standard attention's.
struct ScalingPoint {
  std::int64_t seqlen;
  std::string impl;               // "fattn" or "standard"
  std::optional<double> time_ms;  // empty: not run, it would take too much memory or time
  double bytes;                   // inputs, outputs and workspace or score matrix
};

// The problem at growing sequence lengths on random data, until a call of ours takes longer than about a second or
// `longest` is reached. Standard attention is timed on CPUs only.
std::vector<ScalingPoint> measure_scaling(const Problem& problem, const Device& device, std::int64_t longest,
                                          Progress& progress);

std::string scaling_lines(const std::vector<ScalingPoint>& points);  // what bench/demo_plots.py reads

}  // namespace fattn::tool
