// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "core/kernel.hpp"
#include "cuda/sm90/forward_params.hpp"

// The host's half of the forward rows that does not depend on template parameters. It runs on machines without a GPU.
namespace fattn::gpu::sm90 {

// What a compiled row is for.
struct ForwardRow {
  DType dtype;
  ForwardTile tile;
  std::size_t shared_bytes;
};

// What run() wants precomputed.
struct ForwardPlan {
  BandLimits limits;
  IdentityScore score;
  Schedule schedule;
  int keys_begin;  // keys that some query sees; none: begin == end
  int keys_end;
};

std::string decline_forward(const ForwardRow& row, const Problem& problem, const Device& device);
ForwardPlan plan_forward(const ForwardRow& row, const Problem& problem, const Device& device);
Launch launch_forward(const ForwardRow& row, const Problem& problem, const Device& device);
DenseSource dense_source(const ForwardRow& row, const Problem& problem, const ForwardPlan& plan,
                         const Buffers& buffers);

}  // namespace fattn::gpu::sm90
