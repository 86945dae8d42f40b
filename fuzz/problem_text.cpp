// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "fattn/error.hpp"
#include "fattn/problem.hpp"

// Any text is either refused with an Error(invalid_argument) or a valid Problem, whose canonical text gives it back.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto expect = [&](bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s: %.*s\n", what, static_cast<int>(size), text.data());
    std::abort();
  };
  fattn::Problem problem;
  try {
    problem = fattn::parse_problem(text);
  } catch (const fattn::Error& error) {
    expect(error.status() == fattn::Status::invalid_argument, "refused with another status");
    expect(std::string_view(error.what()).find("nearest: ") != std::string_view::npos, "no nearest value named");
    return 0;
  }
  const std::string canonical = fattn::to_string(problem);
  expect(fattn::parse_problem(canonical) == problem, "does not round-trip");
  expect(fattn::to_string(fattn::parse_problem(canonical)) == canonical, "canonical text is not canonical");
  // Derived facts of a valid problem are finite and cheap, whatever its extents.
  expect(fattn::visible_pairs(problem) >= 0 && fattn::flops(problem) >= 0, "derived facts");
  return 0;
}
