// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "core/problem_words.hpp"
#include "fattn/error.hpp"
#include "fattn/fattn.h"
#include "properties/random_problem.hpp"

namespace fattn {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> parts;
  for (std::string word; stream >> word;) parts.push_back(word);
  return parts;
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : " ") + part;
  return text;
}

void round_trip(const Problem& problem) {
  validate(problem);
  const std::string text = to_string(problem);
  RC_ASSERT(parse_problem(text) == problem);
  RC_ASSERT(to_string(parse_problem(text)) == text);
}

TEST(ProblemTextProperties, RoundTrip) { EXPECT_TRUE(rc::check("parse(print(p)) == p", round_trip)); }

// The same over a fixed set, which must have said every word of the vocabulary, else some field is never tested.
TEST(ProblemTextProperties, RoundTripOfEveryField) {
  std::map<std::string, int> said;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const Problem problem = properties::any_problem()(rc::Random(seed), 100).value();
    ASSERT_NO_THROW(validate(problem)) << to_string(problem);
    ASSERT_EQ(parse_problem(to_string(problem)), problem) << to_string(problem);
    for (const Word& word : words()) said[std::string(word.name)] += word.write(problem).has_value() ? 1 : 0;
  }
  for (const Word& word : words()) EXPECT_GE(said[std::string(word.name)], 10) << word.name;
}

TEST(ProblemTextProperties, WordsComeInAnyOrder) {
  EXPECT_TRUE(rc::check("order and spacing mean nothing", [](const Problem& problem) {
    std::vector<std::string> parts = split(to_string(problem));
    for (std::size_t i = parts.size() - 1; i > 1; --i) {
      std::swap(parts[i], parts[*rc::gen::inRange<std::size_t>(1, i + 1)]);
    }
    RC_ASSERT(parse_problem("\n " + join(parts) + "\t") == problem);
  }));
}

TEST(ProblemTextProperties, DifferentProblemsHaveDifferentTexts) {
  EXPECT_TRUE(rc::check("print is injective", [](const Problem& a, const Problem& b) {
    RC_ASSERT((a == b) == (to_string(a) == to_string(b)));
  }));
}

TEST(ProblemTextProperties, DamagedTextIsRefusedOrRoundTrips) {
  EXPECT_TRUE(rc::check("one character changed, dropped or added", [](const Problem& problem) {
    std::string text = to_string(problem);
    const auto at = *rc::gen::inRange<std::size_t>(0, text.size());
    const char c = *rc::gen::elementOf(std::string("abdhkqstv0129=,-._ \t\n\x7f"));
    switch (*rc::gen::inRange(0, 3)) {
      case 0: text[at] = c; break;
      case 1: text.erase(at, 1); break;
      default: text.insert(at, 1, c);
    }
    try {
      round_trip(parse_problem(text));
    } catch (const Error& error) {
      RC_ASSERT(error.status() == Status::invalid_argument);
      RC_ASSERT(std::string(error.what()).find("nearest: ") != std::string::npos);
    }
  }));
}

TEST(ProblemTextProperties, CStructCarriesEveryField) {
  EXPECT_TRUE(rc::check("text -> struct -> text", [](const Problem& problem) {
    const std::string text = to_string(problem);
    fattn_problem c;
    RC_ASSERT(fattn_problem_from_text(text.c_str(), &c, sizeof c) == FATTN_OK);
    std::string back(text.size() + 1, '\0');
    RC_ASSERT(fattn_problem_to_text(&c, back.data(), back.size(), nullptr) == FATTN_OK);
    back.pop_back();
    RC_ASSERT(back == text);
  }));
}

TEST(ProblemTextProperties, DerivedFactsOfAnyProblem) {
  EXPECT_TRUE(rc::check("0 <= pairs <= all pairs", [](const Problem& p) {
    const double all = static_cast<double>(p.batch) * static_cast<double>(p.heads_q) * static_cast<double>(p.seqlen_q) *
                       static_cast<double>(p.seqlen_k);
    RC_ASSERT(visible_pairs(p) >= 0 && visible_pairs(p) <= all);
    RC_ASSERT(flops(p) <= 2 * all * 3 * 576 * 2);
  }));
}

// docs/api.md promises that its examples parse. Those in code blocks marked `problem`, one a line, are held to it, and
// the grammar above them has to speak of every word.
TEST(ProblemTextDocs, ExamplesParseAndRoundTrip) {
  std::ifstream file(FATTN_SOURCE_DIR "/docs/api.md");
  ASSERT_TRUE(file) << "docs/api.md is missing";
  std::string everything;
  int examples = 0;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    everything += line + "\n";
    if (line.starts_with("```")) {
      inside = !inside && line == "```problem";
      continue;
    }
    if (!inside || line.empty()) continue;
    ++examples;
    ASSERT_NO_THROW(parse_problem(line)) << line;
    const Problem problem = parse_problem(line);
    EXPECT_EQ(parse_problem(to_string(problem)), problem) << line;
    EXPECT_EQ(to_string(problem), line) << "the examples are canonical";
  }
  EXPECT_GE(examples, 10);
  for (const Word& word : words()) {
    if (word.form == WordForm::dtype) continue;
    EXPECT_NE(everything.find("\"" + std::string(word.name)), std::string::npos)
        << word.name << " is not in the grammar of docs/api.md";
  }
}

}  // namespace
}  // namespace fattn
