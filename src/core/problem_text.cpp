// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "core/message.hpp"
#include "core/problem_words.hpp"

namespace fattn {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz_";
constexpr std::string_view kExample = "fwd b1 hq1 sq128 d64 bf16";

std::vector<std::string_view> split_words(std::string_view text) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = text.find_first_not_of(kSpace); begin != text.npos;) {
    const std::size_t end = std::min(text.find_first_of(kSpace, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = text.find_first_not_of(kSpace, end);
  }
  return parts;
}

// A word taken apart: its entry in the vocabulary and what follows the name.
struct Match {
  const Word* word = nullptr;
  std::string_view value;
  bool well_formed = true;
};

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

const Word* find_word(std::string_view name) {
  for (const Word& word : words()) {
    if (word.name == name && word.form != WordForm::dtype) return &word;
  }
  return nullptr;
}

Match match(std::string_view text) {
  if (contains(dtype_words(), text)) {
    const auto all = words();
    return {&*std::find_if(all.begin(), all.end(), [](const Word& w) { return w.form == WordForm::dtype; }), text};
  }
  const std::size_t equals = text.find('=');
  if (equals != text.npos) {
    const Word* word = find_word(text.substr(0, equals));
    return {word, text.substr(equals + 1), word != nullptr && word->form != WordForm::flag && equals + 1 < text.size()};
  }
  if (const Word* word = find_word(text); word != nullptr) {
    return {word, {}, word->form == WordForm::flag || word->form == WordForm::option};
  }
  const std::size_t letters = std::min(text.find_first_not_of(kLetters), text.size());
  const Word* word = find_word(text.substr(0, letters));
  return {word, text.substr(letters), word != nullptr && word->form == WordForm::number};
}

std::string_view nearest_to(std::string_view text) {
  // The name is what a reader may have mistyped; numbers and values only add noise.
  const std::string_view name = text.substr(0, text.find('='));
  std::vector<std::string_view> names(pass_words().begin(), pass_words().end());
  names.insert(names.end(), dtype_words().begin(), dtype_words().end());
  for (const Word& word : words()) {
    if (word.form != WordForm::dtype) names.push_back(word.name);
  }
  return nearest_word(name, names);
}

Pass read_pass(std::string_view text) {
  const auto names = pass_words();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == text) return static_cast<Pass>(i);
  }
  fail(Status::invalid_argument, "problem begins with {}, which is not fwd, bwd or decode; nearest: {}",
       in_quotes(text), nearest_word(text, names));
}

}  // namespace

Problem parse_problem(std::string_view text) {
  const std::vector<std::string_view> parts = split_words(text);
  require(!parts.empty(), "problem is empty; nearest: {}", kExample);
  Problem problem;
  problem.pass = read_pass(parts.front());

  std::vector<const Word*> seen;
  const auto given = [&](const Word* word) { return std::find(seen.begin(), seen.end(), word) != seen.end(); };
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const auto [word, value, well_formed] = match(parts[i]);
    // Not by require(): looking for the nearest word costs more than all of the parsing.
    if (word == nullptr) {
      fail(Status::invalid_argument, "word {} of the problem is unknown; nearest: {}", in_quotes(parts[i]),
           nearest_to(parts[i]));
    }
    WordValue reader(parts[i], word->usage, value);
    if (!well_formed) reader.refuse();
    if (given(word)) {
      fail(Status::invalid_argument, "word {} of the problem gives {} a second time; nearest: once",
           in_quotes(parts[i]), word->name);
    }
    seen.push_back(word);
    word->read(problem, reader);
    reader.finish();
  }
  for (const std::string_view needed : {"sq", "d"}) {
    require(given(find_word(needed)), "problem has no {}; nearest: {}", needed, kExample);
  }
  if (!given(find_word("hk"))) problem.heads_kv = problem.heads_q;
  if (!given(find_word("sk"))) problem.seqlen_k = problem.seqlen_q;
  validate(problem);
  return problem;
}

std::string to_string(const Problem& problem) {
  const auto pass = static_cast<std::size_t>(problem.pass);
  std::string text(pass < pass_words().size() ? pass_words()[pass] : "unknown");
  for (const Word& word : words()) {
    const std::optional<std::string> value = word.write(problem);
    if (!value) continue;
    text += ' ';
    if (word.form != WordForm::dtype) text += word.name;
    if (word.form == WordForm::value || (word.form == WordForm::option && !value->empty())) text += '=';
    text += *value;
  }
  return text;
}

}  // namespace fattn
