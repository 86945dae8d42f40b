// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/backward_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "core/lower.hpp"
#include "cuda/device.hpp"
#include "cuda/sm90/tensor_map.hpp"

namespace fattn::gpu::sm90 {
namespace {

constexpr double kLog2eDouble = 1.4426950408889634;
constexpr std::int64_t kMostRows = std::int64_t{1} << 31;

TensorShape shape_of(const Problem& problem, Operand operand) {
  const bool keys = operand == Operand::k || operand == Operand::v || operand == Operand::dk || operand == Operand::dv;
  const bool values =
      operand == Operand::v || operand == Operand::dv || operand == Operand::o || operand == Operand::dout;
  return {.batch = problem.batch,
          .rows = keys ? problem.seqlen_k : problem.seqlen_q,
          .heads = keys ? problem.heads_kv : problem.heads_q,
          .columns = values ? head_dim_v(problem) : problem.head_dim,
          .strides = strides(problem, operand)};
}

Band band_of(const Problem& problem) {
  return Band::of(lower_band(problem.mask), static_cast<int>(problem.seqlen_q), static_cast<int>(problem.seqlen_k));
}

std::string decline_options(const Problem& problem) {
  if (problem.total_q || problem.total_k) return "cu_seqlens: this row has dense batches";
  if (problem.seqused_q || problem.seqused_k) return "seqused: this row has sequences of full length";
  if (problem.kv_cache) return "kv_cache: this row has dense keys and values";
  if (problem.mask.documents) return "mask = documents: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.prefix) return "mask = prefix: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.block_sparse) return "mask = block_sparse: this row has causal, causal_top_left, window, chunk";
  if (problem.score.softcap != 0) return fmt::format("softcap = {}: this row has 0", problem.score.softcap);
  if (problem.score.bias) return "bias: this row has none";
  if (problem.score.alibi != Alibi::none) return "alibi: this row has none";
  if (problem.dropout > 0) return fmt::format("dropout = {}: this row has 0", problem.dropout);
  if (problem.descale.kind != DescaleKind::none) return "descale: this row has none";
  return {};
}

std::string decline_scale(const Problem& problem) {
  if (std::abs(softmax_scale(problem)) * kLog2eDouble <= FLT_MAX / 2) return {};
  return fmt::format("softmax_scale = {}: this row has magnitudes up to {}", softmax_scale(problem), FLT_MAX / 4);
}

// Can rows be read and written 16 bytes at a time?
bool in_chunks(const TensorShape& tensor) { return tensor.strides.dim == 1 && decline_strides("", tensor).empty(); }

std::int64_t padded_rows(const BackwardRow& row, const Problem& problem) {
  return (problem.seqlen_q + row.tile.m - 1) / row.tile.m * row.tile.m * problem.heads_q * problem.batch;
}

std::string decline_sizes(const BackwardRow& row, const Problem& problem) {
  if (padded_rows(row, problem) >= kMostRows)
    return fmt::format("batch * heads_q * seqlen_q = {}: this row has less than 2^31 in tiles of {}",
                       problem.batch * problem.heads_q * problem.seqlen_q, row.tile.m);
  const std::int64_t tiles = (problem.seqlen_k + row.tile.n - 1) / row.tile.n * problem.heads_kv * problem.batch;
  if (tiles >= kMostRows / 2)
    return fmt::format("batch * heads_kv = {}: this row has less than 2^30 tiles of {} keys",
                       problem.batch * problem.heads_kv, row.tile.n);
  return {};
}

// Both ask for sums in a fixed order.
bool takes_turns(const Problem& problem) { return problem.deterministic || problem.batch_invariant; }

BackwardSchedule schedule_of(const BackwardRow& row, const Problem& problem, const Device& device) {
  const int m = row.tile.m, n = row.tile.n;
  const Band band = band_of(problem);
  BackwardSchedule schedule{};
  schedule.heads = static_cast<int>(problem.heads_kv);
  schedule.batch = static_cast<int>(problem.batch);
  schedule.key_tiles = static_cast<int>((problem.seqlen_k + n - 1) / n);
  const std::int64_t pairs = problem.heads_kv * problem.batch;
  schedule.items = static_cast<int>(schedule.key_tiles * pairs);
  schedule.section_heads = 1;
  schedule.direction = takes_turns(problem) ? -1 : 1;
  if (schedule.items == 0) return schedule;
  // Key tiles that take equally long go head by head. Else as many heads go together as fit in 4/5 of the L2 cache, so
  // that the longest come first. So they do where blocks take turns: one that follows another then starts after it.
  const TileRange first = BackwardSchedule::query_tiles(band, 0, m, n);
  const TileRange last = BackwardSchedule::query_tiles(band, (schedule.key_tiles - 1) * n, m, n);
  if (first.end - first.begin == last.end - last.begin && !takes_turns(problem)) return schedule;
  const std::int64_t bytes = problem.heads_q / problem.heads_kv * problem.seqlen_q * row.tile.d * 8;
  const std::int64_t most = std::numeric_limits<int>::max() / schedule.key_tiles;
  schedule.section_heads =
      static_cast<int>(std::clamp<std::int64_t>(device.l2_bytes * 4 / 5 / bytes, 1, std::min(pairs, most)));
  return schedule;
}

BackwardWorkspace workspace_of(const BackwardRow& row, const Problem& problem, bool deterministic, bool copy_dout) {
  const auto rows = static_cast<std::size_t>(padded_rows(row, problem));
  const std::size_t parts = rows / row.tile.m * row.tile.compute_warpgroups();
  const auto elements = static_cast<std::size_t>(problem.batch * problem.seqlen_q * problem.heads_q) * row.tile.d;
  BackwardWorkspace workspace{};
  const auto take = [&](std::size_t bytes) {
    const std::size_t at = workspace.bytes;
    workspace.bytes += (bytes + 255) / 256 * 256;
    return at;
  };
  workspace.dq = take(rows * row.tile.d * sizeof(float));
  workspace.lse = take(rows * sizeof(float));
  workspace.delta = take(rows * sizeof(float));
  workspace.turns = take(deterministic ? parts * sizeof(int) : 0);
  workspace.ticket = take(deterministic ? sizeof(int) : 0);
  workspace.dout = take(copy_dout ? elements * 2 : 0);
  return workspace;
}

RowTensor row_tensor(const Problem& problem, Operand operand, const void* data) {
  const TensorShape shape = shape_of(problem, operand);
  return {const_cast<void*>(data), shape.strides, in_chunks(shape)};
}

}  // namespace

std::string decline_backward(const BackwardRow& row, const Problem& problem, const Device& device) {
  if (std::string reason = decline_device(device); !reason.empty()) return reason;
  if (device.shared_memory_per_block < static_cast<std::int64_t>(row.shared_bytes))
    return fmt::format("shared_memory_per_block = {}: this row needs {}", device.shared_memory_per_block,
                       row.shared_bytes);
  if (problem.pass != Pass::backward) return fmt::format("pass = {}: this row has backward", to_string(problem.pass));
  if (problem.dtype != row.dtype)
    return fmt::format("dtype = {}: this row has {}", to_string(problem.dtype), to_string(row.dtype));
  if (output_dtype(problem) != row.dtype)
    return fmt::format("out_dtype = {}: this row has {}", to_string(output_dtype(problem)), to_string(row.dtype));
  if (problem.head_dim != row.tile.d)
    return fmt::format("head_dim = {}: this row has {}", problem.head_dim, row.tile.d);
  if (head_dim_v(problem) != row.tile.d)
    return fmt::format("head_dim_v = {}: this row has {}", head_dim_v(problem), row.tile.d);
  if (std::string reason = decline_options(problem); !reason.empty()) return reason;
  if (std::string reason = decline_scale(problem); !reason.empty()) return reason;
  // The keys that some query sees must be one interval: others are not read, so that NaN in them goes nowhere.
  if (const Band band = band_of(problem); band.chunk > 0 && band.right < 0)
    return fmt::format(
        "chunk = {} with causal_top_left and seqlen_q = {}, seqlen_k = {}: this row has seqlen_q >= seqlen_k",
        band.chunk, problem.seqlen_q, problem.seqlen_k);
  if (problem.alignment < 16) return fmt::format("alignment = {}: this row needs 16", problem.alignment);
  for (const Operand operand : {Operand::q, Operand::k, Operand::v, Operand::dq, Operand::dk, Operand::dv})
    if (std::string reason = decline_strides(to_string(operand), shape_of(problem, operand)); !reason.empty())
      return reason;
  return decline_sizes(row, problem);
}

BackwardPlan plan_backward(const BackwardRow& row, const Problem& problem, const Device& device) {
  const Band band = band_of(problem);
  BackwardPlan plan{};
  plan.limits = lower_band(problem.mask);
  plan.score = {.scale = static_cast<float>(softmax_scale(problem)),
                .scale_log2 = static_cast<float>(softmax_scale(problem) * kLog2eDouble)};
  plan.schedule = schedule_of(row, problem, device);
  plan.query_tiles = static_cast<int>((problem.seqlen_q + row.tile.m - 1) / row.tile.m);
  plan.keys_begin = band.visible(0).begin;
  const bool some = std::int64_t{band.left} + band.right >= 0;  // else every interval is empty
  plan.keys_end = some ? std::max(band.visible(band.seqlen_q - 1).end, plan.keys_begin) : plan.keys_begin;
  plan.deterministic = takes_turns(problem);
  const TensorShape dout = shape_of(problem, Operand::dout);
  const bool expanded = (dout.batch > 1 && dout.strides.batch == 0) || (dout.rows > 1 && dout.strides.seqlen == 0) ||
                        (dout.heads > 1 && dout.strides.head == 0);
  plan.copy_dout = expanded || !in_chunks(dout);
  plan.workspace = workspace_of(row, problem, plan.deterministic, plan.copy_dout);
  return plan;
}

Launch launch_backward(const BackwardRow& row, const Problem& problem, const Device& device) {
  auto plan = std::make_shared<const BackwardPlan>(plan_backward(row, problem, device));
  Launch launch;
  launch.shape = {.tile = fmt::format("{}x{}, {} stages", row.tile.m, row.tile.n, row.tile.stages),
                  .grid = plan->schedule.items,
                  .threads = row.tile.threads(),
                  .shared_memory_bytes = static_cast<std::int64_t>(row.shared_bytes)};
  launch.workspace_bytes = plan->workspace.bytes;
  launch.prepared = std::move(plan);
  return launch;
}

BackwardRows backward_rows(const Problem& problem, const BackwardPlan& plan, void* workspace) {
  char* const base = static_cast<char*>(workspace);
  const BackwardWorkspace& at = plan.workspace;
  BackwardRows rows{};
  rows.dq = reinterpret_cast<float*>(base + at.dq);
  rows.lse = reinterpret_cast<float*>(base + at.lse);
  rows.delta = reinterpret_cast<float*>(base + at.delta);
  rows.turns = plan.deterministic ? reinterpret_cast<int*>(base + at.turns) : nullptr;
  rows.ticket = plan.deterministic ? reinterpret_cast<int*>(base + at.ticket) : nullptr;
  rows.heads_q = static_cast<int>(problem.heads_q);
  rows.query_tiles = plan.query_tiles;
  return rows;
}

BackwardRowParams row_params(const Problem& problem, const BackwardPlan& plan, const Buffers& buffers,
                             void* workspace) {
  BackwardRowParams params{};
  params.o = row_tensor(problem, Operand::o, buffers.o);
  params.dout = row_tensor(problem, Operand::dout, buffers.dout);
  params.dq = row_tensor(problem, Operand::dq, buffers.dq);
  params.dout_copy = plan.copy_dout ? static_cast<char*>(workspace) + plan.workspace.dout : nullptr;
  params.lse = buffers.lse;
  params.dlse = problem.dlse ? buffers.dlse : nullptr;
  params.sinks = problem.sinks ? buffers.sinks : nullptr;
  params.dsink = problem.dsink ? buffers.dsink : nullptr;
  params.limits = plan.limits;
  params.scale = plan.score.scale;
  params.batch = static_cast<int>(problem.batch);
  params.seqlen_q = static_cast<int>(problem.seqlen_q);
  params.seqlen_k = static_cast<int>(problem.seqlen_k);
  params.rows = backward_rows(problem, plan, workspace);
  return params;
}

DenseTensors dense_tensors(const BackwardRow& row, const Problem& problem, const BackwardPlan& plan,
                           const BackwardRowParams& params, const Buffers& buffers) {
  DenseTensors source{};
  source.first_key = plan.keys_begin;
  source.heads_per_kv = static_cast<int>(problem.heads_q / problem.heads_kv);
  source.seqlen_q = params.seqlen_q;
  source.seqlen_k = params.seqlen_k;
  source.dk = encode(buffers.dk, row.dtype, shape_of(problem, Operand::dk), row.tile.n);
  source.dv = encode(buffers.dv, row.dtype, shape_of(problem, Operand::dv), row.tile.n);
  if (plan.keys_begin == plan.keys_end) return source;  // nothing is loaded
  source.q = encode(buffers.q, row.dtype, shape_of(problem, Operand::q), row.tile.m);
  TensorShape dout = shape_of(problem, Operand::dout);
  if (plan.copy_dout)
    dout.strides = {
        .batch = dout.rows * dout.heads * dout.columns, .seqlen = dout.heads * dout.columns, .head = dout.columns};
  source.dout = encode(plan.copy_dout ? params.dout_copy : buffers.dout, row.dtype, dout, row.tile.m);
  const auto seen = [&](Operand operand, const void* data) {
    TensorShape shape = shape_of(problem, operand);
    const auto* first = static_cast<const char*>(data) + 2 * shape.strides.seqlen * plan.keys_begin;
    shape.rows = plan.keys_end - plan.keys_begin;
    return encode(first, row.dtype, shape, row.tile.n);
  };
  source.k = seen(Operand::k, buffers.k);
  source.v = seen(Operand::v, buffers.v);
  return source;
}

}  // namespace fattn::gpu::sm90
