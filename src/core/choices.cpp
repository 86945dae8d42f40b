// SPDX-License-Identifier: Apache-2.0
#include "fattn/choices.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <utility>

#include "core/message.hpp"
#include "core/registry.hpp"

namespace fattn {
namespace {

constexpr std::string_view kForm = "<problem> | <row>[@<tile>] | <device>";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

// Up to the next bar, which goes too; the last part is what is left, because names of devices are not ours.
std::string_view take_part(std::string_view& rest, std::string_view where) {
  const std::size_t bar = rest.find('|');
  if (bar == rest.npos) fail(Status::invalid_argument, "{}: a line has three parts; nearest: {}", where, kForm);
  const std::string_view part = trimmed(rest.substr(0, bar));
  rest.remove_prefix(bar + 1);
  return part;
}

// What a choice holds for: a model of GPU, or of CPU and so many threads.
std::string key_of(const Device& device) {
  std::string name(trimmed(device.name));
  if (device.kind == DeviceKind::cuda) return name;
  return fmt::format("{}, {} thread{}", name, device.threads, device.threads == 1 ? "" : "s");
}

void check_kernel(std::string_view kernel, const Problem& problem, std::string_view where) {
  const std::string_view name = kernel.substr(0, kernel.find('@'));
  std::vector<std::string_view> names;
  for (const Row& row : rows()) {
    if (pass_of(row) == problem.pass) names.push_back(row.name);
  }
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    fail(Status::invalid_argument, "{}: {} is not a {} row of this library; nearest: {}", where, in_quotes(name),
         to_string(problem.pass), nearest_word(name, names));
  }
}

}  // namespace

Choices Choices::parse(std::string_view text, std::string_view name) {
  Choices choices;
  std::map<std::pair<std::string, std::string>, int> lines;  // of a problem and a device
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view rest = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (rest.empty() || rest.front() == '#') continue;
    const std::string where = fmt::format("{}:{}", name, number);
    const std::string_view problem_text = take_part(rest, where), kernel = take_part(rest, where);
    const std::string_view device = trimmed(rest);
    if (device.empty()) fail(Status::invalid_argument, "{}: the device is missing; nearest: {}", where, kForm);
    Problem problem;
    try {
      problem = parse_problem(problem_text);
    } catch (const Error& error) {
      fail(error.status(), "{}: {}", where, error.what());
    }
    check_kernel(kernel, problem, where);
    Line line{to_string(problem), std::string(kernel), std::string(device)};
    const auto [before, added] = lines.emplace(std::pair(line.problem, line.device), number);
    if (!added) {
      fail(Status::invalid_argument, "{}: line {} chooses for this problem and device already; nearest: one of them",
           where, before->second);
    }
    choices.lines_.push_back(std::move(line));
  }
  return choices;
}

Choices Choices::read(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  // An empty file is one without choices; what cannot be read, a folder for one, sets errno.
  if (!file.is_open() || file.bad() || (text.fail() && errno != 0)) {
    fail(Status::io_error, "{}: cannot be read: {}; nearest: a file of lines {}", path, std::strerror(errno), kForm);
  }
  return parse(text.str(), path);
}

std::string Choices::kernel_for(const Problem& problem, const Device& device) const {
  const std::string text = to_string(problem), key = key_of(device);
  for (const Line& line : lines_) {
    if (line.problem == text && line.device == key) return line.kernel;
  }
  return {};
}

void Choices::choose(const Problem& problem, const Device& device, std::string_view kernel) {
  check_kernel(kernel, problem, "kernel");
  const std::string text = to_string(problem), key = key_of(device);
  for (Line& line : lines_) {
    if (line.problem == text && line.device == key) {
      line.kernel = kernel;
      return;
    }
  }
  lines_.push_back({text, std::string(kernel), key});
}

std::string Choices::text() const {
  std::string text;
  for (const Line& line : lines_) text += fmt::format("{} | {} | {}\n", line.problem, line.kernel, line.device);
  return text;
}

}  // namespace fattn
