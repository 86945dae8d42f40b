// SPDX-License-Identifier: Apache-2.0
#include "core/message.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace fattn {
namespace {

constexpr std::size_t kLongestWord = 40;

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string in_quotes(std::string_view word) {
  std::string text(1, '\'');
  for (const char c : word.substr(0, kLongestWord)) text += c >= ' ' && c <= '~' ? c : '?';
  if (word.size() > kLongestWord) text += "...";
  text += '\'';
  return text;
}

std::string_view nearest_word(std::string_view word, std::span<const std::string_view> words) {
  // Kernel names are longer than kLongestWord can be, so twice that is compared.
  word = word.substr(0, 2 * kLongestWord);
  std::string_view nearest;
  std::size_t best = static_cast<std::size_t>(-1);
  for (const std::string_view candidate : words) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace fattn
