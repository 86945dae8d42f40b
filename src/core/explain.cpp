// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>

#include "core/describe.hpp"
#include "core/extents.hpp"
#include "core/kernel.hpp"
#include "core/lower.hpp"
#include "core/message.hpp"

namespace fattn {
namespace {

using std::int64_t;

double count(int64_t a, int64_t b = 1, int64_t c = 1, int64_t d = 1) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c) * static_cast<double>(d);
}

double bytes_of(const Problem& p, Operand operand) {
  const Extents e = extents(p, operand);
  return count(e.batch, e.seqlen, e.heads, e.dim) * static_cast<double>(size_of(dtype_of(p, operand)));
}

double lse_bytes(const Problem& p) {
  return p.pass == Pass::backward || p.return_lse ? 4 * count(p.heads_q, p.total_q.value_or(p.batch * p.seqlen_q)) : 0;
}

double bias_bytes(const Problem& p) {
  if (!p.score.bias) return 0;
  const Bias& bias = *p.score.bias;
  const double elements = count(bias.batch ? p.batch : 1, bias.heads ? p.heads_q : 1, bias.queries ? p.seqlen_q : 1,
                                bias.keys ? p.seqlen_k : 1);
  return elements * static_cast<double>(size_of(bias.dtype) + (p.dbias ? 4 : 0));
}

struct Tile {
  int64_t queries = 1, keys = 1;
  int64_t heads = 1;  // query heads of one key head whose rows share the tile's queries
};

// Rows write their tile as "128x64, 2 stages, 4 heads side by side": queries x keys. No tile: each query reads its keys
// by itself.
Tile tile_of(const LaunchShape& shape) {
  Tile tile;
  const char* const end = shape.tile.data() + shape.tile.size();
  const auto [cross, error] = std::from_chars(shape.tile.data(), end, tile.queries);
  if (error != std::errc() || cross == end || *cross != 'x') return {};
  const auto [rest, second_error] = std::from_chars(cross + 1, end, tile.keys);
  if (second_error != std::errc() || tile.queries <= 0 || tile.keys <= 0) return {};
  const std::size_t words = shape.tile.find(" heads side by side"), number = shape.tile.rfind(' ', words - 1) + 1;
  if (words != shape.tile.npos) std::from_chars(shape.tile.data() + number, shape.tile.data() + words, tile.heads);
  return tile;
}

// Keys of all the key tiles that the query tiles of one head visit, or queries when `of_queries`, the transposed walk.
double visited(const Band& band, Tile tile, bool of_queries) {
  if (tile.queries == 1 && tile.keys == 1) return static_cast<double>(visible_pairs(band));
  const int outer = static_cast<int>(of_queries ? tile.keys : tile.queries);
  const int inner = static_cast<int>(of_queries ? tile.queries : tile.keys);
  const int outer_length = of_queries ? band.seqlen_k : band.seqlen_q;
  const int64_t inner_length = of_queries ? band.seqlen_q : band.seqlen_k;
  double total = 0;
  for (int begin = 0; begin < outer_length; begin += outer) {
    const int end = min_of(begin + outer, outer_length);
    const TileRange range = of_queries ? band.tiles_for(begin, end, inner) : band.tiles(begin, end, inner);
    const int64_t last = std::min<int64_t>(int64_t{range.end} * inner, inner_length);
    total += static_cast<double>(std::max<int64_t>(0, last - int64_t{range.begin} * inner));
  }
  return total;
}

// What one pass over the inner loop moves for each row that it visits, and what is moved once.
double tiled_bytes(const Problem& p, Tile tile) {
  const Band band = Band::of(lower_band(p.mask), static_cast<int>(p.seqlen_q), static_cast<int>(p.seqlen_k));
  const double heads = count(p.batch, p.heads_q), size = static_cast<double>(size_of(p.dtype));
  const double d = static_cast<double>(p.head_dim), dv = static_cast<double>(head_dim_v(p));
  const double once = lse_bytes(p) + bias_bytes(p);
  if (p.pass != Pass::backward) {
    // Heads side by side: a tile has fewer queries of each, and its keys are loaded once for all of them.
    tile.queries = std::max<int64_t>(1, tile.queries / tile.heads);
    return once + bytes_of(p, Operand::q) + bytes_of(p, Operand::o) +
           heads / static_cast<double>(tile.heads) * visited(band, tile, false) * (d + dv) * size;
  }
  double tensors = 0;
  for (const Operand each : kOperands) {
    if (each != Operand::q) tensors += bytes_of(p, each);
  }
  // q, dout, lse and delta are read, an fp32 dq is read and written back.
  const double each_query = (d + dv) * size + 2 * 4 + 2 * 4 * d;
  return once + tensors + heads * visited(band, tile, true) * each_query;
}

std::string against(double ours, double standard) {
  return fmt::format("{:<12} standard attention {}{}", bytes_text(ours), bytes_text(standard),
                     ours > 0 ? fmt::format(" ({} x)", three_digits(standard / ours)) : "");
}

}  // namespace

Traffic Plan::traffic() const {
  const Problem& p = state_->problem;
  double tensors = lse_bytes(p) + bias_bytes(p);
  for (const Operand each : kOperands) {
    if (takes_part(p.pass, each)) tensors += bytes_of(p, each);
  }
  const bool backward = p.pass == Pass::backward;
  // One score matrix of all heads, stored in the dtype as eager implementations do.
  const double scores = count(p.batch, p.heads_q, p.seqlen_q, p.seqlen_k) * static_cast<double>(size_of(p.dtype));
  Traffic traffic;
  traffic.bytes = tiled_bytes(p, tile_of(state_->launch.shape));
  // Forward: S and P written and read. Backward: P read twice, dP written and read, dS written and read twice.
  traffic.standard_bytes = tensors + (backward ? 7 : 4) * scores;
  traffic.memory_bytes = tensors + static_cast<double>(workspace_bytes());
  traffic.standard_memory_bytes = tensors + (backward ? 3 : 2) * scores;
  return traffic;
}

std::string Plan::explain() const {
  const Problem& p = state_->problem;
  const Device& on = state_->device;
  const Traffic moved = traffic();
  const double work = flops(p);
  std::string text;
  const auto line = [&](std::string_view label, std::string_view value) {
    text += fmt::format("{:<11}{}\n", label, value);
  };
  line("problem", to_string(p));
  line("device", device_text(on));
  line("kernel", kernel());
  line("", launch_text(*this));
  line("workspace", bytes_text(static_cast<double>(workspace_bytes())));
  std::string ideal;
  if (on.peak_16bit_tflops > 0 && size_of(p.dtype) == 2) {
    ideal = fmt::format(", {:.4g} us at the device's peak", work / on.peak_16bit_tflops / 1e6);
  }
  line("work", count_text(work, "FLOP") + ideal);
  line("memory", against(moved.memory_bytes, moved.standard_memory_bytes));
  line("traffic", against(moved.bytes, moved.standard_bytes));
  std::string_view label = "refused";
  for (const Refusal& each : grouped(refusals())) {
    line(label, fmt::format("{}: {}", each.kernel, each.reason));
    label = "";
  }
  return text;
}

}  // namespace fattn
