// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "cuda/common/key_list.hpp"
#include "cuda/launch.hpp"
#include "cuda/ptx/arithmetic.cuh"
#include "cuda/sm90/backward.cuh"
#include "cuda/sm90/backward_plan.hpp"
#include "cuda/sm90/backward_rows.cuh"
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
using identity = PlainScore;
using modified = ShapedScore;
using dense = DenseTensors;
using varlen = VarlenTensors;
template <class Type, BackwardTile tile, class Mask, class Score, class Source>
using backward = BackwardTraits<Type, tile, Mask, Score, Source>;
}  // namespace words

// The functions of a row. `Traits` is a struct of the row's name derived from BackwardTraits.
template <class Traits>
struct BackwardLaunch {
  static constexpr BackwardTile tile = Traits::tile;
  static constexpr int parts = tile.compute_warpgroups();
  static constexpr auto prepare_rows = backward_prepare<typename Traits::Element, tile.d, tile.m, tile.n, parts>;
  static constexpr auto finish_rows = backward_finish<typename Traits::Element, tile.d, tile.m, tile.n, parts>;
  static constexpr auto sum_sinks = backward_sink<tile.m>;
  static constexpr BackwardRow row = {Traits::dtype, tile, sizeof(typename Traits::Shared), Traits::Source::kVarlen,
                                      Traits::Score::kModified};

  static std::string decline(const Problem& problem, const Device& device) {
    return decline_backward(row, problem, device);
  }

  static Launch prepare(const Problem& problem, const Device& device) {
    if (device.index >= 0) load_encoder();
    load_kernel(device, "sm90 backward", backward<Traits>, row.shared_bytes);
    load_kernel(device, "sm90 backward rows", prepare_rows, 0);
    load_kernel(device, "sm90 backward dQ", finish_rows, 0);
    load_kernel(device, "sm90 backward dSink", sum_sinks, 0);
    if constexpr (Traits::Source::kVarlen) load_key_list(device);
    return launch_backward(row, problem, device);
  }

  static void run(const Run& run) {
    const DeviceGuard guard(run.device.index);  // also for the driver's encoder of tensor maps
    const auto& plan = *static_cast<const BackwardPlan*>(run.launch.prepared.get());
    const cudaStream_t stream = run.stream.cuda;
    const BackwardRowParams rows = row_params(run.problem, plan, run.buffers, run.workspace.data);
    const auto blocks = [](std::int64_t count, int threads, bool early = false) {
      return LaunchConfig{.grid = dim3(static_cast<unsigned>(count)), .block = dim3(threads), .early = early};
    };

    const std::int64_t heads = rows.rows.heads_q, padded = std::int64_t{plan.query_tiles} * tile.m;
    const std::int64_t block_rows = kRowThreads / lanes_of_row(tile.d) * kRowsAThread;
    if constexpr (Traits::Source::kVarlen) before_backward(row, plan, run);
    launch("sm90 backward rows", prepare_rows,
           blocks((padded * heads + block_rows - 1) / block_rows * rows.batch, kRowThreads), stream, rows);
    if (plan.schedule.items > 0) {
      typename Traits::Params params{};
      if constexpr (Traits::Source::kVarlen)
        params.source = varlen_tensors(row, run.problem, plan, rows, run);
      else
        params.source = dense_tensors(row, run.problem, plan, rows, run.buffers);
      params.mask = {plan.limits};
      params.score = plan.score;
      if constexpr (Traits::Score::kModified)
        if (run.problem.score.alibi != Alibi::none) params.score.slopes = run.buffers.alibi_slopes;
      params.schedule = plan.schedule;
      params.rows = rows.rows;
      LaunchConfig config{.grid = dim3(static_cast<unsigned>(run.launch.shape.grid)),
                          .block = dim3(tile.threads()),
                          .shared_bytes = row.shared_bytes,
                          .early = plan.schedule.workers == 0,
                          .together = plan.schedule.workers > 0};
      if (!try_launch("sm90 backward", backward<Traits>, config, stream, params)) {
        params.schedule = plan.alone;
        config.early = true, config.together = false;
        launch("sm90 backward", backward<Traits>, config, stream, params);
      }
    }
    launch("sm90 backward dQ", finish_rows, blocks(padded / 64 * heads * rows.batch, kRowThreads, true), stream, rows);
    if (rows.dsink != nullptr) launch("sm90 backward dSink", sum_sinks, blocks(heads, kSinkThreads), stream, rows);
  }
};

template <class Traits>
constexpr Kernel backward_row(std::string_view name) {
  using Row = BackwardLaunch<Traits>;
  return {.name = name,
          .device = DeviceKind::cuda,
          .pass = Pass::backward,
          .decline = Row::decline,
          .prepare = Row::prepare,
          .run = Row::run};
}

}  // namespace fattn::gpu::sm90
