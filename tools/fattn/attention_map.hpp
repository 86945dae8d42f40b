// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "fattn/problem.hpp"
#include "io/png.hpp"
#include "verify/case_data.hpp"

namespace fattn::tool {

// Mean attention probability in a grid of cells over the (query, key) plane of one head.
struct AttentionMap {
  std::int64_t head;
  int query_cells, key_cells;
  std::vector<double> mean;  // [query_cells, key_cells]
};

// Maps of the first sequence of a forward case. The probabilities are never stored: with a one-hot V, column c of which
// marks the keys of cell c, attention itself returns each query's total probability in each cell.
AttentionMap attention_map(verify::CaseData& inputs, std::int64_t head, int most_cells);

// All maps on one sheet, on one logarithmic scale, with axes.
io::Image draw(const std::vector<AttentionMap>& maps, std::int64_t seqlen_q, std::int64_t seqlen_k);

}  // namespace fattn::tool
