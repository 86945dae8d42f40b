// SPDX-License-Identifier: Apache-2.0
#include "fattn/problem.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/extents.hpp"
#include "core/lower.hpp"

namespace fattn {
namespace {

using std::int64_t;

// Sum over the diagonals d in [begin, end) of the keys that [d - left, d + right] and [low, high) share.
int64_t band_area(int64_t begin, int64_t end, int64_t low, int64_t high, int64_t left, int64_t right) {
  if (begin >= end || low >= high) return 0;
  const auto keys = [&](int64_t d) {
    return std::max<int64_t>(0, std::min(high, d + right + 1) - std::max(low, d - left));
  };
  // The number of keys is linear in d between these.
  std::array<int64_t, 6> bends = {begin, end, low + left, high - right - 1, low - right - 1, high + left};
  for (int64_t& bend : bends) bend = std::clamp(bend, begin, end);
  std::sort(bends.begin(), bends.end());
  int64_t area = 0;
  for (std::size_t i = 0; i + 1 < bends.size(); ++i) {
    const int64_t a = bends[i], b = bends[i + 1];
    if (a < b) area += (keys(a) + keys(b - 1)) * (b - a) / 2;
  }
  return area;
}

}  // namespace

int64_t visible_pairs(const Band& band) {
  const int64_t begin = band.diagonal(0), end = int64_t{band.diagonal(0)} + band.seqlen_q;
  if (band.chunk == 0) return band_area(begin, end, 0, band.seqlen_k, band.left, band.right);
  if (end <= 0 || band.seqlen_k == 0) return 0;
  const int64_t chunk = band.chunk, first = std::max<int64_t>(0, begin) / chunk, last = (end - 1) / chunk;
  const auto area = [&](int64_t i) {
    return band_area(std::max(begin, i * chunk), std::min(end, (i + 1) * chunk), i * chunk,
                     std::min<int64_t>(band.seqlen_k, (i + 1) * chunk), band.left, band.right);
  };
  if (first == last) return area(first);
  const int64_t whole = band_area(0, chunk, 0, chunk, band.left, band.right);  // each chunk between the two ends
  return area(first) + area(last) + (last - first - 1) * whole;
}

DType output_dtype(const Problem& problem) {
  return problem.out_dtype.value_or(problem.dtype == DType::e4m3 ? DType::bf16 : problem.dtype);
}

int64_t head_dim_v(const Problem& problem) { return problem.head_dim_v == 0 ? problem.head_dim : problem.head_dim_v; }

double softmax_scale(const Problem& problem) {
  return problem.softmax_scale.value_or(1.0 / std::sqrt(static_cast<double>(problem.head_dim)));
}

const std::optional<Strides>& given_strides(const Layouts& layouts, Operand operand) {
  switch (operand) {
    case Operand::q: return layouts.q;
    case Operand::k: return layouts.k;
    case Operand::v: return layouts.v;
    case Operand::o: return layouts.o;
    case Operand::dout: return layouts.dout;
    case Operand::dq: return layouts.dq;
    case Operand::dk: return layouts.dk;
    case Operand::dv: break;
  }
  return layouts.dv;
}

Extents extents(const Problem& problem, Operand operand) {
  const bool keys = of_keys(operand);
  const bool of_scores =
      operand == Operand::q || operand == Operand::k || operand == Operand::dq || operand == Operand::dk;
  Extents shape{
      .batch = problem.batch,
      .seqlen = keys ? problem.seqlen_k : problem.seqlen_q,
      .heads = keys ? problem.heads_kv : problem.heads_q,
      .dim = of_scores ? problem.head_dim : head_dim_v(problem),
  };
  if (packed(problem, operand)) {
    shape.batch = 1;
    shape.seqlen = *(keys ? problem.total_k : problem.total_q);
  } else if (keys && problem.kv_cache && problem.kv_cache->page_size > 0) {
    shape.batch = problem.kv_cache->pages;
    shape.seqlen = problem.kv_cache->page_size;
  }
  return shape;
}

Strides strides(const Problem& problem, Operand operand) {
  if (const auto& given = given_strides(problem.strides, operand); given) return *given;
  const Extents shape = extents(problem, operand);
  const int64_t row = shape.heads * shape.dim;
  return {.batch = packed(problem, operand) ? 0 : shape.seqlen * row, .seqlen = row, .head = shape.dim, .dim = 1};
}

double visible_pairs(const Problem& problem) {
  const Band band =
      Band::of(lower_band(problem.mask), static_cast<int>(problem.seqlen_q), static_cast<int>(problem.seqlen_k));
  return static_cast<double>(visible_pairs(band)) * static_cast<double>(problem.heads_q) *
         static_cast<double>(problem.batch);
}

double flops(const Problem& problem) {
  const double d = static_cast<double>(problem.head_dim), dv = static_cast<double>(head_dim_v(problem));
  return 2 * visible_pairs(problem) * (problem.pass == Pass::backward ? 3 * d + 2 * dv : d + dv);
}

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::fp64: return "fp64";
    case DType::fp32: return "fp32";
    case DType::bf16: return "bf16";
    case DType::fp16: return "fp16";
    case DType::e4m3: return "e4m3";
  }
  return "unknown";
}

std::string_view to_string(Pass pass) {
  switch (pass) {
    case Pass::forward: return "forward";
    case Pass::backward: return "backward";
    case Pass::decode: return "decode";
  }
  return "unknown";
}

std::string_view to_string(Operand operand) {
  switch (operand) {
    case Operand::q: return "q";
    case Operand::k: return "k";
    case Operand::v: return "v";
    case Operand::o: return "o";
    case Operand::dout: return "dout";
    case Operand::dq: return "dq";
    case Operand::dk: return "dk";
    case Operand::dv: return "dv";
  }
  return "unknown";
}

}  // namespace fattn
