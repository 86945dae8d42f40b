// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "core/kernel.hpp"
#include "cpu/marks.hpp"
#include "cpu/tiles.hpp"

// The backward pass around its inner parts. Scores are recomputed once; dQ, dK and dV are summed in fp32 workspace.
//
// The score matrix of each (batch, key head) is cut into square blocks of `chunk` queries x `chunk` keys. A block adds
// to the dQ of its queries and to the dK, dV of its keys, so two blocks of one row or one column must not run at a
// time. Each waits for the one before it in its row and in its column (block_order.hpp), so every sum has one order,
// whatever threads there are, and there is parallel work inside a head without private copies of dQ. Why, and what else
// was tried: docs/cpu.md.
namespace fattn::host {

// How dBias is summed.
enum class BiasGradient {
  none,
  matrix,   // has queries and keys: blocks add to dbias itself; heads and batches that share it take turns
  queries,  // no keys: one sum a query and head, then over what is shared
  keys,     // no queries: one sum a key and head, then over what is shared
};

struct BackwardPlan {
  BackwardPlan(const Problem& problem, const Device& device, const Blocking& blocking, std::optional<Tile> tile);

  Geometry geometry;
  Tensor q, k, v, o, dout, dq, dk, dv;
  Tile tile;
  Blocking blocking;
  BiasGradient bias_gradient;
  int chunk;                      // rows and columns of a block, a multiple of both tile sides
  std::int64_t chunks;            // n: blocks along the longer side of the longest sequence
  std::int64_t turns;             // groups of (batch, key head) that share dbias and take turns
  std::int64_t q_tiles, k_tiles;  // of the longest sequence
  std::int64_t q_rows, k_rows;    // rows of the workspace for one head: all sequences, with kSpill after each
  std::int64_t d, dv_columns;     // head_dim and head_dim_v in whole panels
  bool transposed;                // pairs, plain problems: transposed-inl.hpp
  int lanes;
  std::size_t lane_bytes = 0;
  std::size_t workspace_bytes = 0;
};

// Micro-kernels write whole blocks of rows, and dbias by keys whole panels: this many rows after each sequence are
// nobody's.
inline constexpr int kSpill = 32;

// fp32 sums of one run, in the workspace.
struct BackwardSums {
  BackwardSums(Carver& carver, const BackwardPlan& plan);

  float* dq;            // [heads_q, q_rows, d]; transposed: [heads_q, q_rows / panel, d, panel]
  float* dk;            // [heads_kv, k_rows, d]
  float* dv;            // [heads_kv, k_rows, dv_columns]
  float* dbias;         // [heads_q, q_rows] or [heads_q, k_rows]; null when blocks add to the output or there is none
  float* delta;         // [heads_q, q_rows]
  float* dsink;         // [heads_q, batch, q_tiles]
  std::int32_t* steps;  // [batch, heads_kv, chunks]: blocks of the row that are done
  std::int64_t zeroed;  // floats from dq on that start as 0: all but delta and dsink
};

// What one block works in, in floats; d and dv in whole panels. The layouts are those of vector targets; targets that
// multiply bf16 in pairs have their own in products/pairs-inl.hpp.
struct BackwardScratch {
  BackwardScratch(Carver& carver, const BackwardPlan& plan);

  float* k;             // [d / panel][tile.k][panel]
  float* k_transposed;  // [tile.k / panel][d][panel]
  float* v_transposed;  // [tile.k / panel][dv][panel]
  float* q;             // [d / panel][tile.q][panel]; for delta: two [dv][panel]
  float* dout;          // [dv / panel][tile.q][panel]
  float* p;             // [tile.q][tile.k]: scores, then weights
  float* ds;            // [tile.q][tile.k]: dP, then dS
  float* q_rows;        // pairs: [tile.q][d]
  float* dout_rows;     // pairs: [tile.q][dv]
  float* copy;          // pairs: rows on their way to an operand
  float* weights;       // pairs: P or dS as a left side
  float* wide;          // pairs: fp32 rows of dO and O, when O is not bf16
  float* bias;          // [tile.k / panel][tile.q][panel]; null: none
  int* first;           // [tile.q]: keys [first, last) of the tile are visible
  int* last;            // [tile.q]
  int* marks;           // [tile.q][tile.k]; null: neither documents, blocks nor dropout
  bool* seen_q;         // [tile.q]
  bool* seen_k;         // [tile.k]
};

// What a block of transposed scores works in; n is plan.chunk.
struct TransposedScratch {
  TransposedScratch(Carver& carver, const BackwardPlan& plan);

  std::uint16_t* k;          // [tile.k][d]
  std::uint16_t* v;          // [tile.k][dv]
  std::uint16_t* k_columns;  // [d][tile.k]
  std::uint16_t* q;          // right sides of products over d, dv: [n / panel][d / 2][panel][2]
  std::uint16_t* dout;
  std::uint16_t* q_rows;  // and over queries: [d / panel][n / 2][panel][2]
  std::uint16_t* dout_rows;
  std::uint16_t* p;   // [tile.k][n]
  std::uint16_t* ds;  // [tile.k][n]
  float* s;           // two places, slot_floats apart: [tile.k][panel]
  float* dp;
  std::uint16_t* pairs;  // of rows of ds, likewise
  std::uint16_t* copy;
  float* lse;                     // [n]
  float* delta;                   // [n]
  int* first;                     // [n]: keys [first, last) are visible
  int* last;                      // [n]
  bool* seen_q;                   // [n]
  bool* seen_k;                   // [tile.k]
  std::int64_t* loaded;           // which queries q, dout and what goes with them are; -1: none
  std::int64_t stride;            // n
  std::int64_t half, pairs_half;  // of s and dp, of pairs: half_step() in gemm/pairs-inl.hpp
  std::int64_t slot_floats;       // elements of one place
};

// One panel of queries: its first, counted within the block, and its place.
struct Panel {
  int query;
  float* s;
  float* dp;
  std::uint16_t* pairs;
};

struct BackwardWork {
  const BackwardPlan& plan;
  const Buffers& buffers;
  BackwardSums sums;
  char* lanes;  // [plan.lanes][lane_bytes]

  BackwardScratch scratch(int lane) const {
    Carver carver(lanes + static_cast<std::size_t>(lane) * plan.lane_bytes);
    return {carver, plan};
  }
  TransposedScratch transposed_scratch(int lane) const {
    Carver carver(lanes + static_cast<std::size_t>(lane) * plan.lane_bytes);
    return {carver, plan};
  }
  // Row of the workspace where a sequence begins.
  std::int64_t q_row(std::int64_t batch, const Rows& rows) const {
    return (plan.geometry.problem.total_q ? rows.begin : batch * plan.geometry.problem.seqlen_q) + batch * kSpill;
  }
  std::int64_t k_row(std::int64_t batch, const Rows& rows) const {
    return (plan.geometry.problem.total_k ? rows.begin : batch * plan.geometry.problem.seqlen_k) + batch * kSpill;
  }
};

struct Block {
  std::int64_t batch, head_kv;
  std::int64_t q_chunk, k_chunk;
  bool same_queries;  // as those of this lane's block before, in the same run
};

// The parts that are compiled for each target.
struct BackwardParts {
  void (*delta)(const BackwardWork&, std::int64_t batch, std::int64_t head, std::int64_t q_tile, int lane);
  void (*block)(const BackwardWork&, const Block& block, int lane);
  void (*write_dq)(const BackwardWork&, std::int64_t batch, std::int64_t head, std::int64_t q_tile);
  void (*write_dk_dv)(const BackwardWork&, std::int64_t batch, std::int64_t head_kv, std::int64_t k_tile);
};

// Without a tile: that of backward_tile().
Launch prepare_backward(const Problem& problem, const Device& device, const Blocking& blocking,
                        std::optional<Tile> tile = {});
void run_backward(const Run& run, const BackwardParts& parts);

}  // namespace fattn::host
