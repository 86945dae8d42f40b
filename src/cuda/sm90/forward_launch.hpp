// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "cuda/launch.hpp"
#include "cuda/ptx/arithmetic.cuh"
#include "cuda/sm90/forward.cuh"
#include "cuda/sm90/forward_plan.hpp"
#include "cuda/sm90/forward_varlen_plan.hpp"
#include "cuda/sm90/tensor_map.hpp"

namespace fattn::gpu::sm90 {

// The words of a row of cmake/kernels.cmake.
namespace words {
struct bf16 {
  using Element = ptx::Bf16;
  static constexpr DType dtype = DType::bf16;
};
struct fp16 {
  using Element = ptx::Fp16;
  static constexpr DType dtype = DType::fp16;
};
using band = tile::BandMask;
using identity = IdentityScore;
using modified = ModifiedScore;
using dense = DenseSource;
using varlen = VarlenSource;
template <class Type, ForwardTile tile, class Mask, class Score, class Source>
using forward = ForwardTraits<Type, tile, Mask, Score, Source>;
}  // namespace words

// The functions of a row. `Traits` is a struct of the row's name derived from ForwardTraits.
template <class Traits>
struct ForwardLaunch {
  static constexpr bool kVarlen = Traits::Source::kVarlen;
  static constexpr ForwardRow row = {.dtype = Traits::dtype,
                                     .tile = Traits::tile,
                                     .shared_bytes = sizeof(typename Traits::Shared),
                                     .modified = Traits::Score::kModified,
                                     .varlen = kVarlen};

  static std::string decline(const Problem& problem, const Device& device) {
    return decline_forward(row, problem, device);
  }

  static Launch prepare(const Problem& problem, const Device& device) {
    if (device.index >= 0) load_encoder();
    load_kernel(device, "sm90 forward", forward<Traits>, row.shared_bytes);
    if constexpr (!kVarlen) return launch_forward(row, problem, device);
    load_work_list(device);
    load_merge(device);
    return launch_varlen(row, problem, device);
  }

  static typename Traits::Params dense_params(const Run& run) {
    const auto& plan = *static_cast<const ForwardPlan*>(run.launch.prepared.get());
    typename Traits::Params params{};
    params.source = dense_source(run.problem, plan, run.buffers);
    params.mask = {plan.limits};
    params.score = plan.score;
    params.schedule = plan.schedule;
    params.sinks = run.problem.sinks ? run.buffers.sinks : nullptr;
    return params;
  }

  static typename Traits::Params varlen_params(const Run& run) {
    const auto& plan = *static_cast<const VarlenPlan*>(run.launch.prepared.get());
    typename Traits::Params params{};
    params.source = varlen_source(plan, run);
    params.mask = {plan.limits};
    params.score = plan.score;
    if constexpr (Traits::Score::kModified) {
      if (run.problem.score.alibi != Alibi::none) params.score.slopes = run.buffers.alibi_slopes;
      if (run.problem.return_max_logit) params.score.max_logit = run.buffers.max_logit;
    }
    params.schedule = varlen_schedule(run.problem, plan);
    params.sinks = run.problem.sinks && plan.splits == 1 ? run.buffers.sinks : nullptr;
    return params;
  }

  static typename Traits::Params make_params(const Run& run) {
    if constexpr (kVarlen)
      return varlen_params(run);
    else
      return dense_params(run);
  }

  static void run(const Run& run) {
    const DeviceGuard guard(run.device.index);
    typename Traits::Params params = make_params(run);
    params.counters = static_cast<int*>(run.workspace.data);
    params.o = rows_out(run.problem, run.buffers.o);
    params.lse = run.problem.return_lse ? run.buffers.lse : nullptr;
    params.lse_layout = lse_layout(run.problem);
    const LaunchConfig config{.grid = dim3(static_cast<unsigned>(run.launch.shape.grid)),
                              .block = dim3(row.tile.threads()),
                              .shared_bytes = row.shared_bytes,
                              .early = kVarlen};
    if constexpr (kVarlen) before_varlen(row, run, *static_cast<const VarlenPlan*>(run.launch.prepared.get()));
    launch("sm90 forward", forward<Traits>, config, run.stream.cuda, params);
    if constexpr (kVarlen) after_varlen(run, *static_cast<const VarlenPlan*>(run.launch.prepared.get()));
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
