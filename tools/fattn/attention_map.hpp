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

// A map of one sequence of a dense forward case. The probabilities are never stored: with a one-hot V, column c of
// which marks the keys of cell c, attention itself returns each query's total probability in each cell. So memory is
// that of seqlen x cells, at most kMostMapColumns of them at a time.
AttentionMap attention_map(verify::CaseData& inputs, std::int64_t head, int most_cells, std::int64_t batch = 0);
inline constexpr std::int64_t kMostMapColumns = 256;

// All maps on one sheet, on one logarithmic scale, with axes. `size`: pixels of a map's longer side, at least one for
// each cell.
io::Image draw(const std::vector<AttentionMap>& maps, std::int64_t seqlen_q, std::int64_t seqlen_k, int size = 256);

}  // namespace fattn::tool
