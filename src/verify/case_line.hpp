// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "verify/case_data.hpp"

namespace fattn::verify {

// A problem and how its data is drawn, as one line of text: a problem string, then, if any option differs from its
// default, a bar and the options:
//   bwd b4 hq8 hk8 sq1208 sk1208 d64 bf16 causal tq=2048 tk=2048 | seed=7 lengths_q=0,1208,840,0 q_scale=4
struct Case {
  Problem problem;
  DataOptions data;
};

Case parse_case(std::string_view line);  // throws Error(invalid_argument) naming the word
std::string to_line(const Case& one);
// Lines of a file without empty ones and comments (#); throws Error(io_error, invalid_argument) with the line's number.
std::vector<Case> read_cases(const std::string& path);

}  // namespace fattn::verify
