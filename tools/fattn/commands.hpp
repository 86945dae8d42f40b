// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

namespace CLI {
class App;
}

// One function for each subcommand: adds it to the command line and, when the user picks it, sets `chosen`.
namespace fattn::tool {

inline constexpr int kExitOk = 0;
inline constexpr int kExitMiss = 1;  // a check found a wrong result
inline constexpr int kExitBad = 2;   // bad input, or something that could not be done

using Command = std::function<int()>;  // returns the exit code; throws Error

void add_info(CLI::App& app, Command& chosen);
void add_explain(CLI::App& app, Command& chosen);
void add_check(CLI::App& app, Command& chosen);
void add_bench(CLI::App& app, Command& chosen);
void add_run(CLI::App& app, Command& chosen);
void add_map(CLI::App& app, Command& chosen);
void add_walk(CLI::App& app, Command& chosen);
void add_tune(CLI::App& app, Command& chosen);
void add_selfcheck(CLI::App& app, Command& chosen);

}  // namespace fattn::tool
