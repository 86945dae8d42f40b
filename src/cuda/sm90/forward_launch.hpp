// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "cuda/launch.hpp"
#include "cuda/ptx/arithmetic.cuh"
#include "cuda/sm90/forward.cuh"
#include "cuda/sm90/forward_plan.hpp"
#include "cuda/sm90/tensor_map.hpp"

namespace fattn::gpu::sm90 {

// The words of a row of cmake/kernels.cmake.
namespace words {
struct bf16 {
  using Element = ptx::Bf16;
  static constexpr DType dtype = DType::bf16;
};
using band = tile::BandMask;
using identity = IdentityScore;
using dense = DenseSource;
template <class Type, ForwardTile tile, class Mask, class Score, class Source>
using forward = ForwardTraits<Type, tile, Mask, Score, Source>;
}  // namespace words

// The functions of a row. `Traits` is a struct of the row's name derived from ForwardTraits.
template <class Traits>
struct ForwardLaunch {
  static constexpr ForwardRow row = {Traits::dtype, Traits::tile, sizeof(typename Traits::Shared)};

  static std::string decline(const Problem& problem, const Device& device) {
    return decline_forward(row, problem, device);
  }

  static Launch prepare(const Problem& problem, const Device& device) {
    if (device.index >= 0) load_encoder();
    load_kernel(device, "sm90 forward", forward<Traits>, row.shared_bytes);
    return launch_forward(row, problem, device);
  }

  static void run(const Run& run) {
    const DeviceGuard guard(run.device.index);  // also for the driver's encoder of tensor maps
    const auto& plan = *static_cast<const ForwardPlan*>(run.launch.prepared.get());
    typename Traits::Params params{};
    params.source = dense_source(row, run.problem, plan, run.buffers);
    params.mask = {plan.limits};
    params.score = plan.score;
    params.schedule = plan.schedule;
    params.counters = static_cast<int*>(run.workspace.data);
    params.lse = run.problem.return_lse ? run.buffers.lse : nullptr;
    const LaunchConfig config{.grid = dim3(static_cast<unsigned>(run.launch.shape.grid)),
                              .block = dim3(row.tile.threads()),
                              .shared_bytes = row.shared_bytes};
    launch("sm90 forward", forward<Traits>, config, run.stream.cuda, params);
  }
};

template <class Traits>
constexpr Kernel forward_row(std::string_view name) {
  using Row = ForwardLaunch<Traits>;
  return {.name = name,
          .device = DeviceKind::cuda,
          .pass = Pass::forward,
          .decline = Row::decline,
          .prepare = Row::prepare,
          .run = Row::run};
}

}  // namespace fattn::gpu::sm90
