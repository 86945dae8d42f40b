// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "text.hpp"
#include "verify/check.hpp"

namespace fattn::tool {

struct SelfcheckOptions {
  Device device;
  std::uint64_t seed = 1;
  double minutes = 1;         // no problem is begun after them
  std::int64_t problems = 0;  // 0: as many as there is time for
};

// A row that is further from the oracle than its bound, writes what it must not, or fails.
struct SelfcheckMiss {
  std::string line;  // `fattn check` repeats it
  std::string kernel;
  std::string what;
};

struct SelfcheckResult {
  std::int64_t problems = 0;
  std::int64_t refused = 0;  // of them, by every row
  std::int64_t checks = 0;   // of a row on a problem
  std::map<std::string, std::int64_t> checks_of;
  std::vector<SelfcheckMiss> misses;
  double seconds = 0;
};

// Random problems, each on every row that accepts it, against the fp64 oracle. `judge` compares one row; tests put
// something else in its place. `on_miss` hears of each miss at once.
using JudgeRow = std::function<verify::CheckResult(verify::Judge&, const std::string& kernel)>;
SelfcheckResult selfcheck(const SelfcheckOptions& options, Progress& progress, const JudgeRow& judge,
                          const std::function<void(const SelfcheckMiss&)>& on_miss);

}  // namespace fattn::tool
