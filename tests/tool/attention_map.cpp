// SPDX-License-Identifier: Apache-2.0
#include "attention_map.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace fattn::tool {
namespace {

// The map by definition: all probabilities of a head, then means over cells.
std::vector<double> by_definition(verify::CaseData& data, std::int64_t head, std::int64_t cells_q,
                                  std::int64_t cells_k) {
  const Problem& p = data.problem();
  const std::int64_t head_kv = head / (p.heads_q / p.heads_kv);
  std::vector<double> sums(static_cast<std::size_t>(cells_q * cells_k), 0.0), counts = sums;
  std::vector<double> q(static_cast<std::size_t>(p.head_dim)), k = q, weights(static_cast<std::size_t>(p.seqlen_k));
  const auto cell_of = [](std::int64_t i, std::int64_t cells, std::int64_t length) {
    std::int64_t cell = 0;
    while ((cell + 1) * length / cells <= i) ++cell;
    return cell;
  };
  for (std::int64_t i = 0; i < p.seqlen_q; ++i) {
    data.tensor("q").get_row(i * p.heads_q + head, q.data());
    double sum = 0;
    for (std::int64_t j = 0; j < p.seqlen_k; ++j) {
      data.tensor("k").get_row(j * p.heads_kv + head_kv, k.data());
      double s = 0;
      for (std::size_t c = 0; c < q.size(); ++c) s += q[c] * k[c];
      const bool seen = !p.mask.causal || j <= i + p.seqlen_k - p.seqlen_q;
      sum += weights[static_cast<std::size_t>(j)] = seen ? std::exp(s * softmax_scale(p)) : 0;
    }
    for (std::int64_t j = 0; j < p.seqlen_k; ++j) {
      const auto at =
          static_cast<std::size_t>(cell_of(i, cells_q, p.seqlen_q) * cells_k + cell_of(j, cells_k, p.seqlen_k));
      sums[at] += sum > 0 ? weights[static_cast<std::size_t>(j)] / sum : 0;
      counts[at] += 1;
    }
  }
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] /= counts[i];
  return sums;
}

TEST(AttentionMap, IsTheMeanProbabilityOfItsCells) {
  for (const char* text : {"fwd b2 hq4 hk2 sq50 sk70 d16 fp32 causal", "fwd b1 hq2 hk1 sq40 sk9 d8 fp32"}) {
    verify::CaseData data(parse_problem(text), cpu());
    for (const std::int64_t head : {std::int64_t{0}, data.problem().heads_q - 1}) {
      const AttentionMap map = attention_map(data, head, 12);
      EXPECT_EQ(map.query_cells, 12);
      EXPECT_EQ(map.key_cells, std::min<std::int64_t>(12, data.problem().seqlen_k));
      const std::vector<double> expected = by_definition(data, head, map.query_cells, map.key_cells);
      ASSERT_EQ(map.mean.size(), expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(map.mean[i], expected[i], 1e-6) << text << ' ' << i;
    }
  }
}

TEST(AttentionMap, SheetHasRoomForEveryMap) {
  verify::CaseData data(parse_problem("fwd b1 hq4 hk4 sq30 sk30 d8 fp32 causal"), cpu());
  std::vector<AttentionMap> maps;
  int width = 0;
  for (std::int64_t head = 0; head < 4; ++head) {
    maps.push_back(attention_map(data, head, 16));
    const io::Image image = draw(maps, 30, 30);
    EXPECT_EQ(image.pixels.size(), static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height));
    EXPECT_GE(image.width, width);
    width = image.width;
  }
}

}  // namespace
}  // namespace fattn::tool
