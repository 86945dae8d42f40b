// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fattn/plan.hpp"

// How facts read to people, the same in Plan::explain() and in the tool.
namespace fattn {

std::string three_digits(double value);                       // "0.25", "12.3", "1234": no exponent from 0.1 to 9999
std::string bytes_text(double bytes);                         // "3.75 MiB"
std::string count_text(double count, std::string_view unit);  // "5.37 GFLOP": powers of 1000

std::string device_text(const Device& device);  // "NVIDIA H200 (cuda:0), sm90, 132 SMs, 141 GiB, 989 TFLOP/s"
std::string launch_text(const Plan& plan);      // "tile 64x128; 144 work items for 2 threads"

// One for each run of rows that refuse for the same reason, named "sm90_forward_bf16_d64_band and 25 more".
std::vector<Refusal> grouped(const std::vector<Refusal>& refusals);

}  // namespace fattn
