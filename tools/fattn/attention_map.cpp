// SPDX-License-Identifier: Apache-2.0
#include "attention_map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data.hpp"
#include "fattn/attention.hpp"
#include "io/draw.hpp"

namespace fattn::tool {

namespace {

using io::Color;
using io::Image;

constexpr Color kInk{40, 40, 40};
constexpr Color kUnseen{236, 236, 236};  // cells without any visible pair
constexpr int kLeft = 44, kTop = 22, kGap = 18, kBottom = 26, kBar = 12, kRight = 64;
constexpr int kColumns = 3;
constexpr double kDecades = 4;

// Keys of cell c are [first(c), first(c + 1)).
std::int64_t first_of(std::int64_t cell, std::int64_t cells, std::int64_t length) { return cell * length / cells; }

std::vector<float> one_head(const verify::Tensor& tensor, std::int64_t batch, std::int64_t rows, std::int64_t head) {
  const std::int64_t heads = tensor.extents()[2], dim = tensor.extents()[3];
  std::vector<float> result;
  result.reserve(static_cast<std::size_t>(rows * dim));
  std::vector<double> row(static_cast<std::size_t>(dim));
  for (std::int64_t i = 0; i < rows; ++i) {
    tensor.get_row((batch * rows + i) * heads + head, row.data());
    for (const double value : row) result.push_back(static_cast<float>(value));
  }
  return result;
}

Problem one_head_problem(const Problem& whole, std::int64_t columns) {
  Problem p;
  p.dtype = DType::fp32;
  p.seqlen_q = whole.seqlen_q;
  p.seqlen_k = whole.seqlen_k;
  p.head_dim = whole.head_dim;
  p.head_dim_v = columns;
  p.softmax_scale = softmax_scale(whole);
  p.mask = whole.mask;
  p.score = whole.score;
  p.sinks = whole.sinks;
  if (p.score.alibi != Alibi::none) p.score.alibi = Alibi::per_head;
  if (p.score.bias) p.score.bias->batch = p.score.bias->heads = false;
  return p;
}

// The key cells [begin, end) of the map.
void add_columns(const Problem& whole, Buffers buffers, std::int64_t begin, std::int64_t end, AttentionMap& map) {
  const Problem p = one_head_problem(whole, end - begin);
  const Plan chosen = plan(p, cpu());
  const std::int64_t columns = end - begin, cells = map.key_cells;
  std::vector<float> v(static_cast<std::size_t>(p.seqlen_k * columns), 0.0F);
  for (std::int64_t cell = begin; cell < end; ++cell) {
    for (std::int64_t j = first_of(cell, cells, p.seqlen_k); j < first_of(cell + 1, cells, p.seqlen_k); ++j) {
      v[static_cast<std::size_t>(j * columns + cell - begin)] = 1.0F;
    }
  }
  std::vector<float> o(static_cast<std::size_t>(p.seqlen_q * columns));
  buffers.v = v.data();
  buffers.o = o.data();
  const DeviceMemory workspace(chosen.device(), chosen.workspace_bytes());
  run(chosen, buffers, {workspace.data(), workspace.bytes()});

  for (std::int64_t row = 0; row < map.query_cells; ++row) {
    const std::int64_t first = first_of(row, map.query_cells, p.seqlen_q);
    const std::int64_t last = first_of(row + 1, map.query_cells, p.seqlen_q);
    for (std::int64_t cell = begin; cell < end; ++cell) {
      const std::int64_t keys = first_of(cell + 1, cells, p.seqlen_k) - first_of(cell, cells, p.seqlen_k);
      double sum = 0;
      for (std::int64_t i = first; i < last; ++i) {
        sum += static_cast<double>(o[static_cast<std::size_t>(i * columns + cell - begin)]);
      }
      map.mean[static_cast<std::size_t>(row * cells + cell)] = sum / static_cast<double>((last - first) * keys);
    }
  }
}

}  // namespace

AttentionMap attention_map(verify::CaseData& inputs, std::int64_t head, int most_cells, std::int64_t batch) {
  const Problem& whole = inputs.problem();
  const std::int64_t seqlen_q = whole.seqlen_q, seqlen_k = whole.seqlen_k;
  const std::int64_t query_cells = std::min<std::int64_t>(most_cells, seqlen_q);
  const std::int64_t key_cells = std::min<std::int64_t>(most_cells, seqlen_k);
  const std::vector<float> q = one_head(inputs.tensor("q"), batch, seqlen_q, head);
  const std::vector<float> k = one_head(inputs.tensor("k"), batch, seqlen_k, head / (whole.heads_q / whole.heads_kv));
  Buffers buffers = {};
  const Buffers host = inputs.masters();
  buffers.q = q.data();
  buffers.k = k.data();
  if (host.alibi_slopes != nullptr) {
    const bool per_batch = whole.score.alibi == Alibi::per_batch_and_head;
    buffers.alibi_slopes = host.alibi_slopes + (per_batch ? batch * whole.heads_q : 0) + head;
  }
  if (host.sinks != nullptr) buffers.sinks = host.sinks + head;
  if (host.bias != nullptr) {
    const Bias& bias = *whole.score.bias;
    const std::int64_t slice = (bias.queries ? seqlen_q : 1) * (bias.keys ? seqlen_k : 1);
    const std::int64_t index = (bias.batch ? batch * (bias.heads ? whole.heads_q : 1) : 0) + (bias.heads ? head : 0);
    buffers.bias = static_cast<const std::byte*>(host.bias) + index * slice * size_of(bias.dtype);
  }

  AttentionMap map{head, static_cast<int>(query_cells), static_cast<int>(key_cells), {}};
  map.mean.resize(static_cast<std::size_t>(query_cells * key_cells));
  for (std::int64_t cell = 0; cell < key_cells; cell += kMostMapColumns) {
    add_columns(whole, buffers, cell, std::min(key_cells, cell + kMostMapColumns), map);
  }
  return map;
}

io::Image draw(const std::vector<AttentionMap>& maps, std::int64_t seqlen_q, std::int64_t seqlen_k, int size) {
  const AttentionMap& one = maps.front();
  const int scale = std::max(1, size / std::max(one.query_cells, one.key_cells));
  const int width = one.key_cells * scale, height = one.query_cells * scale;
  const int count = static_cast<int>(maps.size()), columns = std::min(kColumns, count);
  const int rows = (count + columns - 1) / columns;
  const int tile_width = kLeft + width + kGap, tile_height = kTop + height + kBottom;
  Image image(columns * tile_width + kRight, rows * tile_height + kGap);

  double top = 0;
  for (const AttentionMap& map : maps) top = std::max(top, *std::max_element(map.mean.begin(), map.mean.end()));
  const double log_top = top > 0 ? std::log10(top) : 0;
  const auto color = [&](double mean) {
    return mean > 0 ? io::heat(1 + (std::log10(mean) - log_top) / kDecades) : kUnseen;
  };

  for (int n = 0; n < count; ++n) {
    const AttentionMap& map = maps[static_cast<std::size_t>(n)];
    const int x = n % columns * tile_width + kLeft, y = n / columns * tile_height + kTop;
    for (int i = 0; i < map.query_cells; ++i) {
      for (int j = 0; j < map.key_cells; ++j) {
        const double mean = map.mean[static_cast<std::size_t>(i) * static_cast<std::size_t>(map.key_cells) +
                                     static_cast<std::size_t>(j)];
        io::fill(image, x + j * scale, y + i * scale, scale, scale, color(mean));
      }
    }
    io::draw_text(image, x, y - 12, fmt::format("head {}", map.head), kInk);
    const std::string last_key = std::to_string(seqlen_k - 1), last_query = std::to_string(seqlen_q - 1);
    io::draw_text(image, x, y + height + 4, "0", kInk);
    io::draw_text(image, x + width - io::text_width(last_key), y + height + 4, last_key, kInk);
    io::draw_text(image, x + (width - io::text_width("key")) / 2, y + height + 4, "key", kInk);
    io::draw_text(image, x - 4 - io::text_width("0"), y, "0", kInk);
    io::draw_text(image, x - 4 - io::text_width(last_query), y + height - io::kTextHeight, last_query, kInk);
    io::draw_text(image, x - 4 - io::text_width("query"), y + height / 2, "query", kInk);
  }

  // The scale, beside the first row.
  const int x = columns * tile_width, bar_height = height;
  for (int i = 0; i < bar_height; ++i) {
    io::fill(image, x, kTop + i, kBar, 1, io::heat(1 - (i + 0.5) / bar_height));
  }
  io::draw_text(image, x, kTop - 12, "mean p", kInk);
  for (int decade = 0; decade <= static_cast<int>(kDecades); ++decade) {
    const int y = kTop + static_cast<int>(std::lround(decade / kDecades * (bar_height - io::kTextHeight)));
    io::draw_text(image, x + kBar + 4, y, fmt::format("{:.1e}", top * std::pow(10.0, -decade)), kInk);
  }
  return image;
}

}  // namespace fattn::tool
