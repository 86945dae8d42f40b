// SPDX-License-Identifier: Apache-2.0
#include "text.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace fattn::tool {

namespace {

// Columns that text takes on a terminal: colour sequences take none.
std::size_t shown_width(std::string_view text) {
  std::size_t width = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      while (i < text.size() && text[i] != 'm') ++i;
    } else {
      ++width;
    }
  }
  return width;
}

std::string padded(const std::string& text, std::size_t width, Align align) {
  const std::string blanks(width - std::min(width, shown_width(text)), ' ');
  return align == Align::left ? text + blanks : blanks + text;
}

void append_line(std::string& to, std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  to += line + '\n';
}

bool colored() {
  static const bool yes = [] {
    const char* no_color = std::getenv("NO_COLOR");
    const char* term = std::getenv("TERM");
    return ::isatty(STDOUT_FILENO) == 1 && (no_color == nullptr || *no_color == '\0') &&
           (term == nullptr || std::string_view(term) != "dumb");
  }();
  return yes;
}

std::string painted(std::string_view text, int code) {
  return colored() ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

}  // namespace

std::string time_text(double microseconds) {
  if (microseconds < 1) return fmt::format("{} ns", three_digits(microseconds * 1e3));
  if (microseconds < 1e3) return fmt::format("{} us", three_digits(microseconds));
  if (microseconds < 1e6) return fmt::format("{} ms", three_digits(microseconds / 1e3));
  return fmt::format("{} s", three_digits(microseconds / 1e6));
}

std::string error_text(double value) { return fmt::format("{:.1e}", value); }

std::string ratio_text(double ratio) {
  return std::isfinite(ratio) ? fmt::format("{}x", three_digits(ratio)) : std::string("-");
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  std::vector<std::string> titles;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    titles.push_back(columns_[c].title);
    widths.push_back(columns_[c].title.size());
    for (const auto& row : rows_) widths[c] = std::max(widths[c], shown_width(row[c]));
  }
  std::string result;
  const auto add = [&](const std::vector<std::string>& cells) {
    std::string line(1, ' ');
    for (std::size_t c = 0; c < columns_.size(); ++c)
      line += ' ' + padded(cells[c], widths[c], columns_[c].align) + ' ';
    append_line(result, line);
  };
  if (std::any_of(titles.begin(), titles.end(), [](const std::string& title) { return !title.empty(); })) add(titles);
  for (const auto& row : rows_) add(row);
  return result;
}

std::string Facts::text() const {
  std::size_t width = 0;
  for (const auto& [key, value] : facts_) width = std::max(width, key.size());
  std::string result;
  for (const auto& [key, value] : facts_) append_line(result, padded(key, width, Align::left) + "  " + value);
  return result;
}

Progress::Progress() : terminal_(::isatty(STDERR_FILENO) == 1) {
  const char* term = std::getenv("TERM");
  if (term != nullptr && std::string_view(term) == "dumb") terminal_ = false;
}

Progress::~Progress() { clear(); }

void Progress::show(std::string_view line) {
  if (!terminal_) return;
  winsize size = {};
  const std::size_t columns =
      ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1U : 79U;
  std::fprintf(stderr, "\r\x1b[K%.*s", static_cast<int>(std::min(line.size(), columns)), line.data());
  std::fflush(stderr);
  shown_ = true;
}

void Progress::clear() {
  if (!shown_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

std::string good(std::string_view text) { return painted(text, 32); }
std::string bad(std::string_view text) { return painted(text, 31); }
std::string strong(std::string_view text) { return painted(text, 1); }

}  // namespace fattn::tool
