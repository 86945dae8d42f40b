// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "fattn/problem.hpp"

// The vocabulary of the text form. Reading and writing a word stand side by side, in the order in which words are
// printed; docs/api.md has the grammar.
namespace fattn {

enum class WordForm : std::uint8_t {
  number,  // b4, read also as b=4
  dtype,   // bf16
  flag,    // causal
  value,   // window=1024,0
  option,  // alibi or alibi=batch
};

// What follows a word's name: its number, or the comma separated items after '='. Throws Error(invalid_argument).
class WordValue {
 public:
  WordValue(std::string_view word, std::string_view usage, std::string_view value)
      : word_(word), usage_(usage), rest_(value), done_(value.empty()) {}

  bool done() const { return done_; }
  std::int64_t integer();
  double real();
  std::string_view item();
  // The position of the next item in `names`.
  std::size_t choice(std::span<const std::string_view> names);
  DType dtype();
  void finish() const;  // refuses what was not read

  [[noreturn]] void refuse() const;

 private:
  std::string_view word_, usage_, rest_;
  bool done_;
};

struct Word {
  std::string_view name;
  WordForm form;
  std::string_view usage;
  void (*read)(Problem&, WordValue&);
  std::optional<std::string> (*write)(const Problem&);  // empty: the default, which is not printed
};

std::span<const Word> words();

std::span<const std::string_view> pass_words();   // in the order of Pass
std::span<const std::string_view> dtype_words();  // in the order of DType

}  // namespace fattn
