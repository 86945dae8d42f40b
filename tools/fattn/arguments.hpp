// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fattn/device.hpp"
#include "fattn/plan.hpp"
#include "fattn/problem.hpp"
#include "verify/case_line.hpp"

// What the subcommands share: arguments in, facts out.
namespace fattn::tool {

using Json = nlohmann::ordered_json;

// Empty text: the first GPU, or the CPU where there is none.
Device device_argument(const std::string& text);
Device present_device_argument(const std::string& text);  // refuses devices that are only described

std::optional<DType> dtype_argument(const std::string& text);  // "bf16"; empty text: none

// Each argument is a case ("fwd b1 ... | seed=3", see verify/case_line.hpp) or a file with one a line; '#' begins a
// comment. Cases that name no seed get `seed`.
std::vector<verify::Case> case_arguments(const std::vector<std::string>& arguments, std::uint64_t seed);

// The rows of this list, with their tiles, that have the problem's pass; each must accept it.
std::vector<std::string> forced_names(const std::vector<std::string>& names, const Problem& problem,
                                      const Device& device);
std::vector<Plan> forced_plans(const std::vector<std::string>& names, const Problem& problem, const Device& device);

Json device_json(const Device& device);
Json plan_json(const Plan& plan);

std::string commit();  // of the sources this was built from, or "unknown"
std::string version_text();
std::string utc_stamp();  // "20260131T235959Z"
std::string utc_date();   // "2026-01-31"

// To stdout; text that is not UTF-8 is replaced, never an error.
void print(const std::string& text);
void print(const Json& json, int indent = 2);

// What the tool cannot accept: exit code 2.
[[noreturn]] void refuse(const std::string& reason);

}  // namespace fattn::tool
