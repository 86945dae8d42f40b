// SPDX-License-Identifier: Apache-2.0
#include "io/png.hpp"

#include <fmt/format.h>
#include <png.h>

#include "fattn/error.hpp"

namespace fattn::io {

void write_png(Sink& sink, const Image& image) {
  static_assert(sizeof(Color) == 3, "pixels are handed over as packed RGB");
  png_image facts = {};
  facts.version = PNG_IMAGE_VERSION;
  facts.width = static_cast<png_uint_32>(image.width);
  facts.height = static_cast<png_uint_32>(image.height);
  facts.format = PNG_FORMAT_RGB;
  // Into memory first: the sink, not libpng, knows how to fail while writing.
  png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(facts);
  std::vector<std::byte> encoded(bytes);
  if (png_image_write_to_memory(&facts, encoded.data(), &bytes, 0, image.pixels.data(), 0, nullptr) == 0) {
    throw Error(Status::internal_error,
                fmt::format("cannot encode a {} x {} picture: {}", image.width, image.height, facts.message));
  }
  sink.write(std::span<const std::byte>(encoded).first(bytes));
}

}  // namespace fattn::io
