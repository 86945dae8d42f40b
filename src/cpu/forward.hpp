// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "core/kernel.hpp"
#include "cpu/marks.hpp"
#include "cpu/tiles.hpp"

// The forward pass around its inner part: what is planned, how the work is cut, where it finds its scratch memory. The
// inner part, forward_item(), is forward-inl.hpp, compiled once for each target.
namespace fattn::host {

struct ForwardPlan {
  ForwardPlan(const Problem& problem, const Device& device, const Blocking& blocking, std::optional<Tile> tile);

  Geometry geometry;
  Tensor q, k, v, o;
  Tile tile;
  Blocking blocking;
  std::int64_t q_tiles;  // of the longest sequence
  std::int64_t splits;   // parts of the keys that are items of their own; 1: all keys in one
  int fold;              // few queries: heads that share a key head and are one item; 0: see few_queries-inl.hpp
  std::int64_t items;    // (batch, query head or fold of heads, query tile, part)
  int lanes;             // items in flight, each with scratch memory of its own
  std::size_t lane_bytes = 0;

  std::int64_t part_rows() const { return fold > 0 ? fold * geometry.problem.seqlen_q : kFewQueries; }
  std::int64_t part_floats() const { return geometry.dv + 2; }
};

// What one item works in. Sizes in floats unless the type says otherwise; d and dv are rounded up to whole panels. The
// layouts are those of vector targets; targets that multiply bf16 in pairs have their own in products/pairs-inl.hpp.
struct ForwardScratch {
  ForwardScratch(Carver& carver, const ForwardPlan& plan);

  float* q;          // [tile.q / panel][d][panel], transposed
  float* k;          // [d / panel][tile.k][panel]; pairs: [tile.group] of [tile.k][d]
  float* v;          // [dv / panel][tile.k][panel]; pairs: [tile.group] of [dv][tile.k]
  float* s;          // [tile.k][tile.q]: scores, then weights, transposed; pairs: [2][tile.k][panel]
  float* o;          // [tile.q][dv]
  float* copy;       // pairs: rows on their way to an operand
  float* rows;       // pairs: [panel][dv], a panel of o
  float* bias;       // [tile.q / panel][tile.k][panel]; null: none
  float* max;        // [tile.q]
  float* sum;        // [tile.q]
  float* factor;     // [tile.q]; pairs: [2][panel]
  float* max_logit;  // [tile.q]
  int* first;        // [tile.q]: keys [first, last) are visible
  int* last;         // [tile.q]
  int* marks;        // [tile.k][tile.q]; null: neither documents, blocks nor dropout
  bool* seen;        // [tile.k]
  bool* begun;       // pairs: [tile.q / panel]; the panel's o holds something
};

// One run: the plan, its data and its memory.
struct ForwardWork {
  const ForwardPlan& plan;
  const Buffers& buffers;
  char* lanes;        // [plan.lanes][lane_bytes]
  float* max_logits;  // [batch, heads_q, q_tiles, splits]
  float* parts;       // [batch, heads_q, q_tiles, splits] of rows' states, when there are several

  // One row of one part: its maximum, its sum, then o.
  float* part(std::int64_t item, int row) const { return parts + (item * plan.part_rows() + row) * plan.part_floats(); }
  ForwardScratch scratch(int lane) const {
    Carver carver(lanes + static_cast<std::size_t>(lane) * plan.lane_bytes);
    return {carver, plan};
  }
};

// What is compiled for each target: an item, and the merge of the parts of one (batch, query head, query tile).
struct ForwardParts {
  void (*item)(const ForwardWork& work, std::int64_t item, int lane);
  void (*merge)(const ForwardWork& work, std::int64_t item);
};

// Without a tile: that of forward_tile().
Launch prepare_forward(const Problem& problem, const Device& device, const Blocking& blocking,
                       std::optional<Tile> tile = {});
void run_forward(const Run& run, const ForwardParts& parts);

}  // namespace fattn::host
