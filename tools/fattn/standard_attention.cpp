// SPDX-License-Identifier: Apache-2.0
#include "standard_attention.hpp"

#include <algorithm>
#include <cmath>

#include "core/lower.hpp"
#include "simd.hpp"

namespace fattn::tool {

namespace {

using std::int64_t;

constexpr int64_t kBlock = 48;  // rows of S that one thread computes at a time

// A tensor [batch, seqlen, heads, dim] as [batch, heads, seqlen, dim], or with the last two swapped.
std::vector<float> by_heads(const verify::Tensor& tensor, bool transposed) {
  const auto& [batches, rows, heads, dim] = tensor.extents();
  std::vector<float> result(static_cast<std::size_t>(tensor.elements()));
  std::vector<double> row(static_cast<std::size_t>(dim));
  for (int64_t b = 0; b < batches; ++b) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        tensor.get_row((b * rows + i) * heads + h, row.data());
        float* const to = result.data() + (b * heads + h) * rows * dim;
        for (int64_t c = 0; c < dim; ++c) {
          to[transposed ? c * rows + i : i * dim + c] = static_cast<float>(row[static_cast<std::size_t>(c)]);
        }
      }
    }
  }
  return result;
}

}  // namespace

bool StandardAttention::serves(const Problem& p) {
  return p.pass == Pass::forward && !p.total_q && !p.total_k && !p.seqused_q && !p.seqused_k && is_band(p.mask) &&
         p.score == Score{} && !p.sinks && p.dropout == 0 && !p.kv_cache && p.dtype != DType::e4m3;
}

double StandardAttention::bytes(const Problem& p) {
  const double d = static_cast<double>(p.head_dim), dv = static_cast<double>(head_dim_v(p));
  const double queries = static_cast<double>(p.batch * p.heads_q * p.seqlen_q);
  const double keys = static_cast<double>(p.batch * p.heads_kv * p.seqlen_k);
  return 4 * (queries * (d + dv) + keys * (d + dv) + queries * static_cast<double>(p.seqlen_k));
}

StandardAttention::StandardAttention(verify::CaseData& inputs, int threads)
    : problem_(inputs.problem()),
      threads_(threads),
      q_(by_heads(inputs.tensor("q"), false)),
      k_(by_heads(inputs.tensor("k"), true)),
      v_(by_heads(inputs.tensor("v"), false)),
      weights_(static_cast<std::size_t>(problem_.batch * problem_.heads_q * problem_.seqlen_q * problem_.seqlen_k)),
      o_(static_cast<std::size_t>(problem_.batch * problem_.heads_q * problem_.seqlen_q * head_dim_v(problem_))) {}

template <class Step>
void StandardAttention::for_each_block(Step step) {
  struct Context {
    StandardAttention& self;
    int64_t blocks;
    Step step;
  } context{*this, (problem_.seqlen_q + kBlock - 1) / kBlock, step};
  threads_.parallel_for(
      problem_.batch * problem_.heads_q * context.blocks,
      [](void* opaque, int64_t item, int) {
        const Context& c = *static_cast<Context*>(opaque);
        (c.self.*c.step)(item / c.blocks, item % c.blocks * kBlock);
      },
      &context);
}

// Three passes over the whole matrix, as three operators of a framework would make.
void StandardAttention::run() {
  for_each_block(&StandardAttention::scores);
  for_each_block(&StandardAttention::softmax);
  for_each_block(&StandardAttention::outputs);
}

void StandardAttention::scores(int64_t head, int64_t row) {
  const Problem& p = problem_;
  const int64_t batch = head / p.heads_q, head_kv = head % p.heads_q / (p.heads_q / p.heads_kv);
  multiply({.a = q_.data() + (head * p.seqlen_q + row) * p.head_dim,
            .b = k_.data() + (batch * p.heads_kv + head_kv) * p.head_dim * p.seqlen_k,
            .c = weights_.data() + (head * p.seqlen_q + row) * p.seqlen_k,
            .a_stride = p.head_dim,
            .b_stride = p.seqlen_k,
            .c_stride = p.seqlen_k,
            .rows = std::min(kBlock, p.seqlen_q - row),
            .inner = p.head_dim,
            .columns = p.seqlen_k});
}

void StandardAttention::softmax(int64_t head, int64_t row) {
  const Problem& p = problem_;
  const Band band = Band::of(lower_band(p.mask), static_cast<int>(p.seqlen_q), static_cast<int>(p.seqlen_k));
  const float scale = static_cast<float>(softmax_scale(p));
  for (int64_t i = row; i < std::min(row + kBlock, p.seqlen_q); ++i) {
    float* const s = weights_.data() + (head * p.seqlen_q + i) * p.seqlen_k;
    const Interval seen = band.visible(static_cast<int>(i));
    const int64_t begin = std::min<int64_t>(seen.begin, p.seqlen_k), end = std::max<int64_t>(seen.end, begin);
    std::fill(s, s + begin, 0.0F);
    std::fill(s + end, s + p.seqlen_k, 0.0F);
    if (begin == end) continue;
    const float top = scale > 0 ? *std::max_element(s + begin, s + end) : *std::min_element(s + begin, s + end);
    float sum = 0;
    for (int64_t j = begin; j < end; ++j) sum += s[j] = std::exp((s[j] - top) * scale);
    for (int64_t j = begin; j < end; ++j) s[j] /= sum;
  }
}

void StandardAttention::outputs(int64_t head, int64_t row) {
  const Problem& p = problem_;
  const int64_t batch = head / p.heads_q, head_q = head % p.heads_q, head_kv = head_q / (p.heads_q / p.heads_kv);
  const int64_t dv = head_dim_v(p);
  multiply({.a = weights_.data() + (head * p.seqlen_q + row) * p.seqlen_k,
            .b = v_.data() + (batch * p.heads_kv + head_kv) * p.seqlen_k * dv,
            .c = o_.data() + ((batch * p.seqlen_q + row) * p.heads_q + head_q) * dv,
            .a_stride = p.seqlen_k,
            .b_stride = dv,
            .c_stride = p.heads_q * dv,
            .rows = std::min(kBlock, p.seqlen_q - row),
            .inner = p.seqlen_k,
            .columns = dv});
}

}  // namespace fattn::tool
