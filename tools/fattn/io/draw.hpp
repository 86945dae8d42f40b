// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "io/png.hpp"

namespace fattn::io {

// Dark to light as `value` goes from 0 to 1, with even steps of lightness, so that it also reads in grey.
Color heat(double value);

inline constexpr int kTextHeight = 7;
int text_width(std::string_view text);
// Small letters, digits and a little punctuation, five pixels wide; capital letters are drawn small. (x, y) is the top
// left corner; what falls outside the picture is dropped.
void draw_text(Image& image, int x, int y, std::string_view text, Color color);
void fill(Image& image, int x, int y, int width, int height, Color color);

}  // namespace fattn::io
