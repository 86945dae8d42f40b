// SPDX-License-Identifier: Apache-2.0
#include "fattn/fattn.hpp"
#include "kernels/extremes.hpp"
#include "verify/case_line.hpp"
#include "verify/check.hpp"

namespace fattn {

Device extremes_device() { return cuda(); }

std::vector<std::string> extremes_rows(const std::string& line) {
  return verify::accepting_rows(verify::parse_case(line).problem, cuda());
}

std::string extremes_absent() { return devices().size() < 2 ? "NO GPU: no CUDA row met the edges of floats" : ""; }

}  // namespace fattn
