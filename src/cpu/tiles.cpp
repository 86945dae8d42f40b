// SPDX-License-Identifier: Apache-2.0
#include "cpu/tiles.hpp"

#include <algorithm>
#include <array>

#include "core/tiles.hpp"
#include "cpu/backward.hpp"
#include "cpu/forward.hpp"
#include "fattn/error.hpp"

namespace fattn {
namespace host {

std::vector<Tile> forward_tiles(const Blocking& blocking, bool groups) {
  std::vector<Tile> tiles;
  if (blocking.pairs) {
    for (const int q : {1, 2, 4, 8, kTallest}) {
      for (const int group : {1, 2, 4, kMostTiles}) {
        if (group == 1 || groups) tiles.push_back({q * kTileSide, kTileSide, group});
      }
    }
    return tiles;
  }
  for (const int q : {kHalfTileSide, kTileSide, 2 * kTileSide, 4 * kTileSide}) {
    if (q % blocking.panel != 0) continue;
    for (const int k : {kHalfTileSide, kTileSide}) tiles.push_back({q, k});
  }
  return tiles;
}

std::vector<Tile> backward_tiles(const Blocking& blocking) {
  const bool halves = !blocking.pairs && kHalfTileSide % blocking.panel == 0;
  std::vector<Tile> tiles;
  for (const int k : {kHalfTileSide, kTileSide}) {
    if (k == kHalfTileSide && !halves) continue;
    if (!blocking.pairs) tiles.push_back({kHalfTileSide, k});
    tiles.push_back({kTileSide, k});
  }
  return tiles;
}

namespace {

// Rows whose plans are ForwardPlan and BackwardPlan, by their targets: "cpu_<target>_forward", "cpu_<target>_backward".
constexpr std::array<std::string_view, 6> kTargets = {"scalar", "avx2", "avx512", "avx512_bf16", "amx", "amx_emulated"};

bool has_tiles(const Kernel& row) {
  return std::any_of(kTargets.begin(), kTargets.end(), [&](std::string_view target) {
    const std::string stem = "cpu_" + std::string(target);
    return row.name == stem + "_forward" || row.name == stem + "_backward";
  });
}

std::string text_of(Tile tile) {
  std::string text = std::to_string(tile.q) + "x" + std::to_string(tile.k);
  if (tile.group > 1) text.append("x").append(std::to_string(tile.group));
  return text;
}

// What a row made of a problem by itself.
struct Usual {
  Usual(const Kernel& row, const Problem& problem, const Device& device) {
    const Launch launch = row.prepare(problem, device);
    if (row.pass == Pass::forward) {
      const auto& plan = *static_cast<const ForwardPlan*>(launch.prepared.get());
      if (plan.fold > 0) return;  // few queries walk the keys where they lie, without tiles
      const Geometry& g = plan.geometry;
      const bool groups = !g.hides && !g.drops && !problem.score.bias;  // marks and bias have room for one tile
      blocking = plan.blocking, tile = plan.tile, tiles = forward_tiles(blocking, groups);
    } else {
      const auto& plan = *static_cast<const BackwardPlan*>(launch.prepared.get());
      blocking = plan.blocking, tile = plan.tile, tiles = backward_tiles(blocking);
    }
    tiles.erase(std::remove(tiles.begin(), tiles.end(), tile), tiles.end());
    tiles.insert(tiles.begin(), tile);
  }
  Blocking blocking{};
  Tile tile{};
  std::vector<Tile> tiles;  // that one first
};

}  // namespace
}  // namespace host

std::vector<std::string> tiles_of(const Kernel& row, const Problem& problem, const Device& device) {
  if (!host::has_tiles(row)) return {};
  const host::Usual usual(row, problem, device);
  std::vector<std::string> texts;
  for (const host::Tile tile : usual.tiles) texts.push_back(host::text_of(tile));
  return texts;
}

Launch prepare_with_tile(const Kernel& row, const Problem& problem, const Device& device, std::string_view tile) {
  const host::Usual usual(row, problem, device);
  for (const host::Tile each : usual.tiles) {
    if (host::text_of(each) != tile) continue;
    return row.pass == Pass::forward ? host::prepare_forward(problem, device, usual.blocking, each)
                                     : host::prepare_backward(problem, device, usual.blocking, each);
  }
  throw Error(Status::internal_error, "tile = " + std::string(tile) + " is none of this row's");
}

}  // namespace fattn
