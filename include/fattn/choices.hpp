// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fattn/device.hpp"
#include "fattn/export.h"
#include "fattn/problem.hpp"

namespace fattn {

// Rows and tiles that were chosen beforehand, by measurement: what `fattn tune` writes. plan() heeds the file that the
// environment variable FATTN_CHOICES names where no row is named otherwise; kernel_for() is for files of one's own. A
// line is
//   <problem> | <row or row@tile> | <device: a GPU's name, or a CPU's and how many threads>
class FATTN_EXPORT Choices {
 public:
  // Throw Error(io_error) for a file that cannot be read, Error(invalid_argument) naming the line that is malformed.
  static Choices read(const std::string& path);
  static Choices parse(std::string_view text, std::string_view name = "choices");

  // For plan()'s last argument; empty: nothing is chosen for this Problem on this Device.
  std::string kernel_for(const Problem& problem, const Device& device) const;
  // Adds a line, or replaces that of the same Problem and Device. Throws Error(invalid_argument) for an unknown row.
  void choose(const Problem& problem, const Device& device, std::string_view kernel);
  std::string text() const;  // parse(text()) gives the same choices back

 private:
  struct Line {
    std::string problem, kernel, device;
  };
  std::vector<Line> lines_;
};

}  // namespace fattn
