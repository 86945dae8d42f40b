// SPDX-License-Identifier: Apache-2.0
#include "io/png.hpp"

#include <png.h>

#include "io/draw.hpp"
#include "io/support.hpp"

namespace fattn::io {
namespace {

TEST(Png, RoundTrips) {
  Image image(37, 23);
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      image.at(x, y) = {static_cast<std::uint8_t>(x * 7), static_cast<std::uint8_t>(y * 11),
                        static_cast<std::uint8_t>(x ^ y)};
    }
  }
  MemorySink sink;
  write_png(sink, image);

  png_image facts = {};
  facts.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_memory(&facts, sink.bytes.data(), sink.bytes.size()), 0) << facts.message;
  EXPECT_EQ(facts.width, 37U);
  EXPECT_EQ(facts.height, 23U);
  facts.format = PNG_FORMAT_RGB;
  Image back(37, 23);
  ASSERT_NE(png_image_finish_read(&facts, nullptr, back.pixels.data(), 0, nullptr), 0) << facts.message;
  EXPECT_EQ(back.pixels, image.pixels);
}

TEST(Draw, HeatGrowsLighter) {
  double before = -1;
  for (int i = 0; i <= 100; ++i) {
    const Color color = heat(i / 100.0);
    const double lightness = 0.2126 * color.red + 0.7152 * color.green + 0.0722 * color.blue;
    EXPECT_GT(lightness, before) << i;
    before = lightness;
  }
  EXPECT_EQ(heat(-1), heat(0));
  EXPECT_EQ(heat(2), heat(1));
  EXPECT_EQ(heat(std::numeric_limits<double>::quiet_NaN()), heat(0));
}

TEST(Draw, TextStaysInsideThePicture) {
  Image image(20, 10);
  draw_text(image, 12, 6, "wide text 0189", {0, 0, 0});
  draw_text(image, -3, -3, "ab", {0, 0, 0});
  fill(image, -5, -5, 100, 7, {1, 2, 3});
  EXPECT_EQ(image.at(19, 1), (Color{1, 2, 3}));
  EXPECT_EQ(image.at(0, 2), (Color{255, 255, 255}));
  EXPECT_EQ(text_width("ab"), 11);
}

TEST(Draw, EveryGlyphOfALabelIsThere) {
  for (const char c : std::string("abcdefghijklmnopqrstuvwxyz0123456789.,:-=/()_%+<>")) {
    Image image(6, 7);
    draw_text(image, 0, 0, std::string_view(&c, 1), {0, 0, 0});
    EXPECT_NE(std::count(image.pixels.begin(), image.pixels.end(), Color{0, 0, 0}), 0) << c;
  }
}

}  // namespace
}  // namespace fattn::io
