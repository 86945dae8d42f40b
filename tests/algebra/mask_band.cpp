// SPDX-License-Identifier: Apache-2.0
#include "algebra/mask_band.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <random>
#include <sstream>

#include "core/lower.hpp"
#include "fattn/mask.hpp"

namespace fattn {
namespace {

// The prefix of the sequence, where the mask has one.
int prefix_length = 0;

Band band_of(const Mask& mask, int seqlen_q, int seqlen_k) {
  return Band::of(lower_band(mask), seqlen_q, seqlen_k, prefix_length);
}

// The table of docs/numerics.md, "Masks", word for word.
bool keeps(const Mask& mask, int query, int key, int seqlen_q, int seqlen_k) {
  const int diagonal = query + seqlen_k - seqlen_q;
  if (mask.causal && !(key <= diagonal)) return false;
  if (mask.causal_top_left && !(key <= query)) return false;
  if (mask.window_left >= 0 && !(diagonal - mask.window_left <= key)) return false;
  if (mask.window_right >= 0 && !(key <= diagonal + mask.window_right)) return false;
  if (mask.chunk > 0) {
    const double size = static_cast<double>(mask.chunk);
    if (std::floor(diagonal / size) != std::floor(key / size)) return false;
  }
  if (mask.prefix && !(key < prefix_length || key <= diagonal)) return false;
  return true;
}

// Small numbers, so that every relation between lengths, windows, chunks and tiles comes up.
class Draw {
 public:
  int operator()(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  Mask mask() {
    Mask mask;
    mask.causal = (*this)(0, 2) == 0;
    mask.causal_top_left = (*this)(0, 3) == 0;
    if ((*this)(0, 1) == 0) mask.window_left = (*this)(-1, 12);
    if ((*this)(0, 1) == 0) mask.window_right = (*this)(-1, 12);
    if ((*this)(0, 2) == 0) mask.chunk = (*this)(1, 11);
    mask.prefix = (*this)(0, 2) == 0;
    prefix_length = (*this)(-2, 24);
    return mask;
  }

 private:
  std::mt19937 engine_{20240711};
};

std::string describe(const Mask& m, int seqlen_q, int seqlen_k) {
  std::ostringstream text;
  text << "causal " << m.causal << " top_left " << m.causal_top_left << " window " << m.window_left << ","
       << m.window_right << " chunk " << m.chunk << " prefix " << (m.prefix ? prefix_length : -1) << " seqlens "
       << seqlen_q << " " << seqlen_k;
  return text.str();
}

constexpr int kDraws = 20000;

TEST(Band, KeepsWhatTheMaskKeeps) {
  Draw draw;
  for (int i = 0; i < kDraws; ++i) {
    const Mask mask = draw.mask();
    const int seqlen_q = draw(0, 20), seqlen_k = draw(0, 20);
    const Band band = band_of(mask, seqlen_q, seqlen_k);
    for (int query = 0; query < seqlen_q; ++query) {
      const Interval visible = band.visible(query);
      for (int key = 0; key < seqlen_k; ++key) {
        const bool kept = keeps(mask, query, key, seqlen_q, seqlen_k);
        ASSERT_EQ(band.keep(query, key), kept) << describe(mask, seqlen_q, seqlen_k) << " at " << query << " " << key;
        ASSERT_EQ(key >= visible.begin && key < visible.end, kept) << describe(mask, seqlen_q, seqlen_k);
      }
      if (visible.begin < visible.end) {
        ASSERT_GE(visible.begin, 0);
        ASSERT_LE(visible.end, seqlen_k);
      }
    }
  }
}

TEST(Band, BothEndsGrowWithTheQuery) {
  Draw draw;
  for (int i = 0; i < kDraws; ++i) {
    const int seqlen_q = draw(1, 20), seqlen_k = draw(0, 20);
    const Mask mask = draw.mask();
    const Band band = band_of(mask, seqlen_q, seqlen_k);
    for (int query = 1; query < seqlen_q; ++query) {
      ASSERT_LE(band.visible(query - 1).begin, band.visible(query).begin) << describe(mask, seqlen_q, seqlen_k);
      ASSERT_LE(band.visible(query - 1).end, band.visible(query).end) << describe(mask, seqlen_q, seqlen_k);
    }
  }
}

void expect_ordered(const TileRange& range, const std::string& what) {
  ASSERT_LE(0, range.begin) << what;
  ASSERT_LE(range.begin, range.interior_begin) << what;
  ASSERT_LE(range.interior_begin, range.interior_end) << what;
  ASSERT_LE(range.interior_end, range.end) << what;
}

TEST(Band, TilesHoldEveryVisiblePairAndInteriorTilesNothingElse) {
  Draw draw;
  for (int i = 0; i < kDraws; ++i) {
    const Mask mask = draw.mask();
    const int seqlen_q = draw(1, 20), seqlen_k = draw(0, 20), size = draw(1, 7);
    const int query_begin = draw(0, seqlen_q - 1), query_end = draw(query_begin + 1, seqlen_q);
    const Band band = band_of(mask, seqlen_q, seqlen_k);
    const TileRange tiles = band.tiles(query_begin, query_end, size);
    const std::string what = describe(mask, seqlen_q, seqlen_k) + " tile " + std::to_string(size);
    expect_ordered(tiles, what);
    ASSERT_LE(tiles.end, ceil_div(seqlen_k, size)) << what;
    for (int tile = 0; tile < ceil_div(seqlen_k, size); ++tile) {
      for (int query = query_begin; query < query_end; ++query) {
        for (int key = tile * size; key < (tile + 1) * size; ++key) {
          const bool kept = key < seqlen_k && keeps(mask, query, key, seqlen_q, seqlen_k);
          if (tile < tiles.begin || tile >= tiles.end) {
            ASSERT_FALSE(kept) << what << " tile " << tile;
          }
          if (tile >= tiles.interior_begin && tile < tiles.interior_end) {
            ASSERT_TRUE(kept) << what << " tile " << tile;
          }
        }
      }
    }
  }
}

TEST(Band, TilesForIsTheTransposedQuestion) {
  Draw draw;
  for (int i = 0; i < kDraws; ++i) {
    const Mask mask = draw.mask();
    const int seqlen_q = draw(0, 20), seqlen_k = draw(1, 20), size = draw(1, 7);
    const int key_begin = draw(0, seqlen_k - 1), key_end = draw(key_begin + 1, seqlen_k);
    const Band band = band_of(mask, seqlen_q, seqlen_k);
    const TileRange tiles = band.tiles_for(key_begin, key_end, size);
    const std::string what = describe(mask, seqlen_q, seqlen_k) + " tile " + std::to_string(size) + " keys " +
                             std::to_string(key_begin) + " " + std::to_string(key_end);
    expect_ordered(tiles, what);
    ASSERT_LE(tiles.end, ceil_div(seqlen_q, size)) << what;
    for (int tile = 0; tile < ceil_div(seqlen_q, size); ++tile) {
      for (int query = tile * size; query < (tile + 1) * size; ++query) {
        for (int key = key_begin; key < key_end; ++key) {
          const bool kept = query < seqlen_q && keeps(mask, query, key, seqlen_q, seqlen_k);
          if (tile < tiles.begin || tile >= tiles.end) {
            ASSERT_FALSE(kept) << what << " tile " << tile;
          }
          if (tile >= tiles.interior_begin && tile < tiles.interior_end) {
            ASSERT_TRUE(kept) << what << " tile " << tile;
          }
        }
      }
    }
  }
}

// A tile of one pair is as tight as tiles can be: there the two questions have one answer.
TEST(Band, TilesOfOnePairAreThePairsKept) {
  Draw draw;
  for (int i = 0; i < 2000; ++i) {
    const Mask mask = draw.mask();
    const int seqlen_q = draw(1, 14), seqlen_k = draw(1, 14);
    const Band band = band_of(mask, seqlen_q, seqlen_k);
    for (int query = 0; query < seqlen_q; ++query) {
      for (int key = 0; key < seqlen_k; ++key) {
        const TileRange keys = band.tiles(query, query + 1, 1), queries = band.tiles_for(key, key + 1, 1);
        const bool kept = keeps(mask, query, key, seqlen_q, seqlen_k);
        ASSERT_EQ(key >= keys.begin && key < keys.end, kept) << describe(mask, seqlen_q, seqlen_k);
        ASSERT_EQ(query >= queries.begin && query < queries.end, kept) << describe(mask, seqlen_q, seqlen_k);
      }
    }
  }
}

TEST(Band, AndKeepsWhatBothKeep) {
  Draw draw;
  for (int i = 0; i < kDraws; ++i) {
    Mask a = draw.mask(), b = draw.mask();
    if (a.chunk > 0 && b.chunk > 0) b.chunk = a.chunk;  // two chunk sizes have no single Mask
    const int seqlen_q = draw(0, 16), seqlen_k = draw(0, 16);
    const Band both = band_of(a & b, seqlen_q, seqlen_k);
    for (int query = 0; query < seqlen_q; ++query) {
      for (int key = 0; key < seqlen_k; ++key) {
        ASSERT_EQ(both.keep(query, key),
                  keeps(a, query, key, seqlen_q, seqlen_k) && keeps(b, query, key, seqlen_q, seqlen_k))
            << describe(a, seqlen_q, seqlen_k) << " & " << describe(b, seqlen_q, seqlen_k);
      }
    }
  }
}

TEST(Band, LengthsNearTheLimitDoNotOverflow) {
  const int longest = kUnbounded - 1;
  for (const Mask& mask :
       {full(), causal(), causal_top_left(), window(0, 0), window(longest, longest), chunk(longest), prefix()}) {
    prefix_length = longest;
    for (const int seqlen_q : {1, longest}) {
      for (const int seqlen_k : {1, longest}) {
        const Band band = band_of(mask, seqlen_q, seqlen_k);
        for (const int query : {0, seqlen_q - 1}) {
          const Interval visible = band.visible(query);
          for (const int key : {0, seqlen_k - 1}) {
            ASSERT_EQ(key >= visible.begin && key < visible.end, keeps(mask, query, key, seqlen_q, seqlen_k))
                << describe(mask, seqlen_q, seqlen_k) << " at " << query << " " << key;
          }
        }
        const TileRange keys = band.tiles(0, seqlen_q, 128), queries = band.tiles_for(0, seqlen_k, 128);
        ASSERT_LE(keys.end, ceil_div(seqlen_k, 128));
        ASSERT_LE(queries.end, ceil_div(seqlen_q, 128));
      }
    }
  }
}

}  // namespace
}  // namespace fattn
