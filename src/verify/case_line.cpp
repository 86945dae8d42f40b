// SPDX-License-Identifier: Apache-2.0
#include "verify/case_line.hpp"

#include <fmt/format.h>

#include <charconv>
#include <fstream>

#include "fattn/error.hpp"

namespace fattn::verify {
namespace {

template <class Number>
Number number(std::string_view word, std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw Error(Status::invalid_argument, fmt::format("data option \"{}\": {} is not a number", word, text));
  }
  return value;
}

std::vector<std::int64_t> list(std::string_view word, std::string_view text) {
  std::vector<std::int64_t> values;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    values.push_back(number<std::int64_t>(word, text.substr(0, comma)));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return values;
}

}  // namespace

Case parse_case(std::string_view line) {
  const std::size_t bar = line.find('|');
  Case one{parse_problem(line.substr(0, bar)), {}};
  std::string_view rest = bar == line.npos ? std::string_view() : line.substr(bar + 1);
  while (true) {
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t\r"), rest.size()));
    if (rest.empty()) return one;
    const std::string_view word = rest.substr(0, rest.find_first_of(" \t\r"));
    rest.remove_prefix(word.size());
    const std::size_t equals = word.find('=');
    const std::string_view key = word.substr(0, equals);
    const std::string_view value = equals == word.npos ? std::string_view() : word.substr(equals + 1);
    DataOptions& data = one.data;
    if (key == "seed") {
      data.seed = number<std::uint64_t>(word, value);
    } else if (key == "q_scale") {
      data.q_scale = number<double>(word, value);
    } else if (key == "k_ramp") {
      data.k_ramp = number<double>(word, value);
    } else if (key == "bias_shift") {
      data.bias_shift = number<double>(word, value);
    } else if (key == "lengths_q") {
      data.lengths_q = list(word, value);
    } else if (key == "lengths_k") {
      data.lengths_k = list(word, value);
    } else if (key == "used_q") {
      data.used_q = list(word, value);
    } else if (key == "used_k") {
      data.used_k = list(word, value);
    } else {
      throw Error(Status::invalid_argument,
                  fmt::format("data option \"{}\" is unknown; there are seed, q_scale, k_ramp, bias_shift, lengths_q, "
                              "lengths_k, used_q, used_k",
                              word));
    }
  }
}

std::string to_line(const Case& one) {
  const DataOptions& data = one.data;
  const DataOptions defaults;
  std::string options;
  const auto add = [&](const char* name, const auto& value, const auto& unset) {
    if (value != unset) options += fmt::format(" {}={}", name, value);
  };
  const auto add_list = [&](const char* name, const std::vector<std::int64_t>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      options += i == 0 ? fmt::format(" {}={}", name, values[i]) : fmt::format(",{}", values[i]);
    }
  };
  add("seed", data.seed, defaults.seed);
  add("q_scale", data.q_scale, defaults.q_scale);
  add("k_ramp", data.k_ramp, defaults.k_ramp);
  add("bias_shift", data.bias_shift, defaults.bias_shift);
  add_list("lengths_q", data.lengths_q);
  add_list("lengths_k", data.lengths_k);
  add_list("used_q", data.used_q);
  add_list("used_k", data.used_k);
  return to_string(one.problem) + (options.empty() ? "" : " |" + options);
}

std::vector<Case> read_cases(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error(Status::io_error, fmt::format("{}: cannot be read", path));
  std::vector<Case> cases;
  std::string line;
  for (int at = 1; std::getline(file, line); ++at) {
    const std::string text = line.substr(0, line.find('#'));
    if (text.find_first_not_of(" \t\r") == text.npos) continue;
    try {
      cases.push_back(parse_case(text));
    } catch (const Error& error) {
      throw Error(error.status(), fmt::format("{}:{}: {}", path, at, error.what()));
    }
  }
  return cases;
}

}  // namespace fattn::verify
