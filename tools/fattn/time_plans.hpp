// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "timer.hpp"
#include "verify/case_line.hpp"

namespace fattn::tool {

// FLOPs of a case that is to be timed, which gets the o and lse that its backward reads. Refuses a case without work.
double prepare_timing(const verify::Case& one, verify::CaseData& inputs);

// One Timing for each plan on the same inputs, all in turn.
std::vector<Timing> time_plans(const std::vector<Plan>& plans, verify::CaseData& inputs, int samples,
                               std::uint64_t seed);

// Of a GPU's data sheet, or of a CPU as it was measured beside the samples.
std::optional<double> peak_tflops(const Device& device, const Timing& timing);

// Names of the rows that accept, oracles left out, in the order in which plan() asks them.
std::vector<std::string> rows_to_time(const Problem& problem, const Device& device);

}  // namespace fattn::tool
