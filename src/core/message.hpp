// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "fattn/error.hpp"

namespace fattn {

template <class... Args>
[[noreturn]] void fail(Status status, fmt::format_string<Args...> text, Args&&... args) {
  throw Error(status, fmt::format(text, std::forward<Args>(args)...));
}

// The arguments of the message are evaluated always and formatted only on failure.
template <class... Args>
void require(bool condition, fmt::format_string<Args...> text, Args&&... args) {
  if (!condition) fail(Status::invalid_argument, text, std::forward<Args>(args)...);
}

// A word of hostile length or content, made fit for a message.
std::string in_quotes(std::string_view word);

// The word with the smallest edit distance; empty when `words` is.
std::string_view nearest_word(std::string_view word, std::span<const std::string_view> words);

}  // namespace fattn
