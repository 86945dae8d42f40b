// SPDX-License-Identifier: Apache-2.0
#include <png.h>

#include "tool/run_support.hpp"

namespace fattn::tool {
namespace {

struct Picture {
  unsigned width = 0, height = 0;
  std::vector<unsigned char> rgb;
};

Picture read_picture(const std::string& path) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  EXPECT_NE(png_image_begin_read_from_file(&image, path.c_str()), 0) << image.message;
  image.format = PNG_FORMAT_RGB;
  Picture picture{image.width, image.height, std::vector<unsigned char>(PNG_IMAGE_SIZE(image))};
  EXPECT_NE(png_image_finish_read(&image, nullptr, picture.rgb.data(), 0, nullptr), 0) << image.message;
  return picture;
}

Outcome map(const TemporaryDirectory& directory, std::vector<std::string> more, const std::string& out = "map.png") {
  more.insert(more.begin(), {"map", write(directory, small()), "--out", directory / out});
  return fattn(more);
}

TEST(Map, DrawsTheHeadsThatWereChosen) {
  const TemporaryDirectory directory;
  const Outcome one = map(directory, {"--heads", "3", "--causal", "--json"});
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(one.json()["heads"], (std::vector<int>{3}));
  EXPECT_EQ(one.json()["problem"], "fwd b2 hq4 hk2 sq24 sk32 d16 dv8 fp32 causal lse");
  const Picture picture = read_picture(directory / "map.png");
  EXPECT_EQ(picture.width, one.json()["width"].get<unsigned>());
  EXPECT_EQ(picture.height, one.json()["height"].get<unsigned>());
  ASSERT_EQ(map(directory, {"--heads", "0,3", "--causal"}, "two.png").code, 0);
  EXPECT_GT(read_picture(directory / "two.png").width, picture.width);
  // Another head, another sequence and another mask are other pictures.
  ASSERT_EQ(map(directory, {"--heads", "2", "--causal"}, "head.png").code, 0);
  EXPECT_NE(read_picture(directory / "head.png").rgb, picture.rgb);
  ASSERT_EQ(map(directory, {"--heads", "3", "--causal", "--sequence", "1"}, "sequence.png").code, 0);
  EXPECT_NE(read_picture(directory / "sequence.png").rgb, picture.rgb);
  ASSERT_EQ(map(directory, {"--heads", "3", "--mask", "window=3,0"}, "mask.png").code, 0);
  EXPECT_NE(read_picture(directory / "mask.png").rgb, picture.rgb);
}

// As many cells as the picture has pixels, and no more than there are queries and keys.
TEST(Map, ResolutionIsThePictures) {
  const TemporaryDirectory directory;
  const Json coarse = map(directory, {"--heads", "0", "--size", "8", "--json"}).json();
  EXPECT_EQ(coarse["query_cells"], 8);
  EXPECT_EQ(coarse["key_cells"], 8);
  const Json fine = map(directory, {"--heads", "0", "--size", "64", "--json"}).json();
  EXPECT_EQ(fine["query_cells"], 24);
  EXPECT_EQ(fine["key_cells"], 32);
  EXPECT_EQ(fine["width"].get<int>() - coarse["width"].get<int>(), 64 - 8);
  EXPECT_EQ(fine["height"].get<int>() - coarse["height"].get<int>(), 2 * 24 - 8);
}

TEST(Map, SpreadsHeadsWhereNoneAreNamed) {
  const TemporaryDirectory directory;
  EXPECT_EQ(map(directory, {"--size", "8", "--json"}).json()["heads"], (std::vector<int>{0, 1, 2, 3}));
}

TEST(Map, RefusesBadInput) {
  const auto refused = [](std::vector<std::string> more, std::initializer_list<std::string_view> words) {
    const TemporaryDirectory directory;
    expect_refused(map(directory, std::move(more)), words);
    EXPECT_EQ(directory.entries(), 1U) << "something was left behind";
  };
  refused({"--heads", "4"}, {"--heads = 4", "nearest: 3"});
  refused({"--heads", "-1"}, {"--heads = -1", "nearest: 0"});
  refused({"--heads", "x"}, {"heads"});
  refused({"--size", "0"}, {"--size = 0", "nearest: 1"});
  refused({"--size", "5000"}, {"nearest: 4096"});
  refused({"--sequence", "2"}, {"--sequence = 2", "nearest: 1"});
  refused({"--mask", "casual"}, {"casual", "nearest: causal"});
  refused({"--mask", "documents"}, {"documents"});
  refused({"--dtype", "int8"}, {"int8"});
  expect_refused(fattn({"map", "/nonexistent.safetensors"}), {"/nonexistent.safetensors"});
  const TemporaryDirectory directory;
  expect_refused(map(directory, {}, "nowhere/map.png"), {"nowhere"});
}

}  // namespace
}  // namespace fattn::tool
