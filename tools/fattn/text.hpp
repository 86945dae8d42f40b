// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/describe.hpp"

// How the tool writes for people: aligned tables, and units beside those of core/describe.hpp.
namespace fattn::tool {

std::string time_text(double microseconds);  // "1.24 ms"
std::string error_text(double value);        // "1.2e-03"
std::string ratio_text(double ratio);        // "0.25x", "1200x"

enum class Align { left, right };

// Columns as wide as their widest cell, two blanks between them, indented by two.
class Table {
 public:
  struct Column {
    std::string title;  // all titles empty: no heading
    Align align = Align::left;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "key        value" lines with the values in one column.
class Facts {
 public:
  void add(std::string key, std::string value) { facts_.emplace_back(std::move(key), std::move(value)); }
  std::string text() const;

 private:
  std::vector<std::pair<std::string, std::string>> facts_;
};

// A line on a terminal that is overwritten as work goes on; nothing when stderr is no terminal.
class Progress {
 public:
  Progress();
  ~Progress();
  void show(std::string_view line);
  void clear();

 private:
  bool terminal_ = false;
  bool shown_ = false;
};

// Colour where stdout is a terminal and NO_COLOR is not set.
std::string good(std::string_view text);
std::string bad(std::string_view text);
std::string strong(std::string_view text);

}  // namespace fattn::tool
