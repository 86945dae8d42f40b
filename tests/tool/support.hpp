// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/wait.h>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "io/support.hpp"  // of tests/io

namespace fattn::tool {

using Json = nlohmann::ordered_json;
using io::TemporaryDirectory;

struct Outcome {
  int code = -1;  // -1: ended by a signal
  std::string out;
  std::string err;

  Json json() const { return Json::parse(out); }
  std::vector<Json> lines() const {
    std::vector<Json> all;
    std::istringstream stream(out);
    for (std::string line; std::getline(stream, line);) all.push_back(Json::parse(line));
    return all;
  }
};

inline std::string in_quotes(const std::string& word) {
  std::string result(1, '\'');
  for (const char c : word) c == '\'' ? result.append("'\\''") : result.append(1, c);
  return result.append("'");
}

// Runs the tool through a shell; `before` is shell text in front of it, such as "ulimit -f 1;".
inline Outcome fattn(const std::vector<std::string>& arguments, const std::string& before = "",
                     const std::string& stdout_to = "") {
  const TemporaryDirectory directory;
  std::string command = before;
  command.append(" ").append(in_quotes(FATTN_TOOL_FILE));
  for (const std::string& each : arguments) command.append(" ").append(in_quotes(each));
  command.append(" >").append(in_quotes(stdout_to.empty() ? (directory / "out").string() : stdout_to));
  command.append(" 2>").append(in_quotes((directory / "err").string()));
  const int status = std::system(command.c_str());
  Outcome outcome;
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  if (stdout_to.empty()) outcome.out = io::read_text(directory / "out");
  outcome.err = io::read_text(directory / "err");
  return outcome;
}

// Exit code 2, one reason on stderr that has all of `words`, nothing on stdout.
inline void expect_refused(const Outcome& outcome, std::initializer_list<std::string_view> words) {
  EXPECT_EQ(outcome.code, 2) << outcome.out << outcome.err;
  EXPECT_EQ(outcome.out, "");
  for (const std::string_view word : words) {
    EXPECT_NE(outcome.err.find(word), std::string::npos) << "lacks: " << word << '\n' << outcome.err;
  }
}

inline bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace fattn::tool
