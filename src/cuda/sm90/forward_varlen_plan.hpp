// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/common/merge.hpp"
#include "cuda/sm90/forward_plan.hpp"

// The host's half of forward rows whose source is VarlenSource.
namespace fattn::gpu::sm90 {

struct VarlenPlan {
  BandLimits limits;
  ModifiedScore score;
  int group;                  // query heads that lie side by side as rows
  int splits;                 // of an item's keys
  int section_heads;          // groups of heads that are taken together
  int row_tiles;              // of a sequence, where lengths are known
  bool listed;                // lengths are known on the device only: there is a work list
  int capacity;               // of it
  std::int64_t rows;          // of lse
  VarlenSource source;        // its maps of no data yet, and none where the device is only described
  bool keys;                  // else the maps of keys and values are of the queries
  std::int64_t output_begin;  // bytes from the first row of the output to where its map begins
  // Bytes from the start of the workspace; the counters come first.
  std::size_t tiles_at;
  std::size_t partial_lse_at;
  std::size_t partial_o_at;
  std::size_t workspace_bytes;
};

VarlenPlan plan_varlen(const ForwardRow& row, const Problem& problem, const Device& device);
Launch launch_varlen(const ForwardRow& row, const Problem& problem, const Device& device);
// Gives a plan the source of all its runs; that of one run.
void make_source(const ForwardRow& row, const Problem& problem, VarlenPlan& plan);
VarlenSource varlen_source(const VarlenPlan& plan, const Run& run);
Schedule varlen_schedule(const Problem& problem, const VarlenPlan& plan);

// What run() does before and after the kernel.
void before_varlen(const ForwardRow& row, const Run& run, const VarlenPlan& plan);
void after_varlen(const Run& run, const VarlenPlan& plan);

}  // namespace fattn::gpu::sm90
