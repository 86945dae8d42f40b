// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "core/kernel.hpp"
#include "cuda/sm90/backward_params.hpp"
#include "cuda/sm90/backward_rows.hpp"

// The host's half of the backward rows that does not depend on template parameters. It runs on machines without a GPU.
namespace fattn::gpu::sm90 {

// What a compiled row is for.
struct BackwardRow {
  DType dtype;
  BackwardTile tile;
  std::size_t shared_bytes;
  bool varlen;    // VarlenTensors, else DenseTensors
  bool modified;  // ShapedScore, else PlainScore
};

// Where things lie in the workspace, in bytes; 0 long: absent.
struct BackwardWorkspace {
  std::size_t dq;
  std::size_t lse;
  std::size_t delta;
  std::size_t turns;
  std::size_t ticket;
  std::size_t dout;
  std::size_t cu_seqlens_q;
  std::size_t cu_seqlens_k;
  std::size_t tiles;
  std::size_t tile_count;
  std::size_t bytes;
};

// What run() wants precomputed.
struct BackwardPlan {
  BandLimits limits;
  ShapedScore score;
  BackwardSchedule schedule;
  BackwardSchedule alone;  // where its blocks cannot run together, as teams must
  BackwardWorkspace workspace;
  int query_tiles;
  int keys_begin;  // keys that some query sees; none: begin == end
  int keys_end;
  bool deterministic;
  bool zeroed;     // dQ's sums begin as zeros; else the first to add to a part writes it
  int shift;       // weight_shift() of the row
  bool copy_dout;  // dO has strides that the copy engine does not take
  int capacity;    // of the list of key tiles; 0: there is none
  int section_rows;
};

std::string decline_backward(const BackwardRow& row, const Problem& problem, const Device& device);
BackwardPlan plan_backward(const BackwardRow& row, const Problem& problem, const Device& device);
Launch launch_backward(const BackwardRow& row, const Problem& problem, const Device& device);

BackwardRows backward_rows(const Problem& problem, const BackwardPlan& plan, void* workspace);
BackwardRowParams row_params(const Problem& problem, const BackwardPlan& plan, const Buffers& buffers, void* workspace);
DenseTensors dense_tensors(const BackwardRow& row, const Problem& problem, const BackwardPlan& plan,
                           const BackwardRowParams& params, const Buffers& buffers);
VarlenTensors varlen_tensors(const BackwardRow& row, const Problem& problem, const BackwardPlan& plan,
                             const BackwardRowParams& params, const Run& run);
// What has to be known of packed sequences first.
void before_backward(const BackwardRow& row, const BackwardPlan& plan, const Run& run);

}  // namespace fattn::gpu::sm90
