// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "io/file.hpp"

namespace fattn::io {

struct Color {
  std::uint8_t red = 0, green = 0, blue = 0;
  friend bool operator==(const Color&, const Color&) = default;
};

// An RGB picture, row by row from the top.
struct Image {
  Image(int columns, int rows, Color background = {255, 255, 255})
      : width(columns),
        height(rows),
        pixels(static_cast<std::size_t>(columns) * static_cast<std::size_t>(rows), background) {}
  Color& at(int x, int y) {
    return pixels[static_cast<std::size_t>(y) * static_cast<std::size_t>(width) + static_cast<std::size_t>(x)];
  }

  int width;
  int height;
  std::vector<Color> pixels;
};

void write_png(Sink& sink, const Image& image);

}  // namespace fattn::io
