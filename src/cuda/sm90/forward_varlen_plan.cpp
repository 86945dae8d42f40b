// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/forward_varlen_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "core/lower.hpp"
#include "cuda/common/work_list.hpp"

namespace fattn::gpu::sm90 {
namespace {

// Counters of the queue, then how many tiles the list has; the rest of the workspace need not be zero.
constexpr std::size_t kCounterBytes = 256;
constexpr int kTileCountAt = 2;
constexpr int kMaxSplits = 64;
// Keys and values of the heads that are taken together. TFLOP/s on an H200 with 32 MiB and 512 items against half of
// both, d 128, 16384 keys: causal sequences of 1k 487 / 497, of 4k 707 / 702, full of 4k 771 / 780; of 128 to 4096
// causal 625 / 602, at d 256 606 / 559
constexpr std::int64_t kSectionBytes = 32 << 20;

std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

// Are all sequences of one length? Packed ones are if the longest leave no room for a shorter one: then, whatever
// cu_seqlens say, nothing but empty tiles can come of it.
bool even_lengths(const Problem& problem) {
  if (problem.seqused_q || problem.seqused_k) return false;
  return problem.total_q.value_or(problem.batch * problem.seqlen_q) == problem.batch * problem.seqlen_q &&
         problem.total_k.value_or(problem.batch * problem.seqlen_k) == problem.batch * problem.seqlen_k;
}

int splits_of(const ForwardRow& row, const Problem& problem, const Device& device, std::int64_t items) {
  if (problem.batch_invariant || items * 2 > device.sm_count) return 1;
  const std::int64_t most = std::min<std::int64_t>(kMaxSplits, problem.seqlen_k / std::max(kSplitKeys, row.tile.n));
  return static_cast<int>(std::clamp<std::int64_t>(device.sm_count / items, 1, std::max<std::int64_t>(most, 1)));
}

// As many heads, together with those that share their keys, as have their keys and values in the L2 cache, but enough
// to keep the order from the longest item to the shortest; fewer where all sequences seem to be of one length. Sections
// are even.
int section_heads_of(const Problem& problem, int group, std::int64_t tiles) {
  const std::int64_t rows = problem.total_k.value_or(problem.batch * problem.seqlen_k), heads = problem.heads_kv;
  const std::int64_t bytes = std::max<std::int64_t>(2 * rows * (problem.head_dim + head_dim_v(problem)), 1);
  const std::int64_t sharing = problem.heads_q / group / heads, items = std::max<std::int64_t>(tiles * sharing, 1);
  const std::int64_t part = problem.total_q == problem.batch * problem.seqlen_q ? 2 : 1;
  const std::int64_t wanted = std::max(kSectionBytes / part / bytes, (kSectionItems / part + items - 1) / items);
  const std::int64_t sections = (heads + std::min(wanted, heads) - 1) / std::min(wanted, heads);
  return static_cast<int>((heads + sections - 1) / sections * sharing);
}

}  // namespace

VarlenPlan plan_varlen(const ForwardRow& row, const Problem& problem, const Device& device) {
  VarlenPlan plan{};
  const std::int64_t m = row.tile.m;
  plan.limits = lower_band(problem.mask);
  plan.score = modified_score(problem);
  plan.group = heads_side_by_side(row, problem);
  plan.row_tiles = static_cast<int>((problem.seqlen_q * plan.group + m - 1) / m);
  const std::int64_t items = plan.row_tiles * problem.batch * (problem.heads_q / plan.group);
  plan.splits = splits_of(row, problem, device, items);
  plan.listed = !even_lengths(problem);
  plan.rows = problem.heads_q * (problem.total_q ? *problem.total_q : problem.batch * problem.seqlen_q);

  std::size_t bytes = kCounterBytes;
  const auto take = [&](std::size_t more) {
    const std::size_t at = bytes;
    bytes = aligned(bytes + more);
    return at;
  };
  if (plan.listed) {
    // Only whether there are cu_seqlens matters here, not where.
    static constexpr std::int32_t kSomewhere = 0;
    const VarlenLengths lengths = lengths_of(problem, {.cu_seqlens_q = &kSomewhere, .cu_seqlens_k = &kSomewhere});
    plan.capacity = static_cast<int>(work_list_capacity(lengths, plan.group, row.tile.m));
    plan.tiles_at = take(plan.capacity * sizeof(PlacedTile));
  }
  plan.section_heads =
      section_heads_of(problem, plan.group, plan.listed ? plan.capacity : plan.row_tiles * problem.batch);
  if (plan.splits > 1) {
    const std::size_t rows = static_cast<std::size_t>(plan.splits * plan.rows);
    plan.partial_lse_at = take(rows * sizeof(float));
    plan.partial_o_at = take(rows * static_cast<std::size_t>(head_dim_v(problem)) * sizeof(float));
  }
  plan.workspace_bytes = bytes;
  return plan;
}

Launch launch_varlen(const ForwardRow& row, const Problem& problem, const Device& device) {
  auto plan = std::make_shared<VarlenPlan>(plan_varlen(row, problem, device));
  if (device.index >= 0) make_source(row, problem, *plan);
  const std::int64_t tiles = plan->listed ? plan->capacity : plan->row_tiles * problem.batch;
  Launch launch;
  launch.shape = {
      .tile = fmt::format("{}x{}, {}+{} stages, {} splits of the keys, {} heads side by side", row.tile.m, row.tile.n,
                          row.tile.k_stages, row.tile.v_stages, plan->splits, plan->group),
      .grid = std::min<std::int64_t>(tiles * (problem.heads_q / plan->group) * plan->splits, device.sm_count),
      .threads = row.tile.threads(),
      .shared_memory_bytes = static_cast<std::int64_t>(row.shared_bytes)};
  launch.workspace_bytes = plan->workspace_bytes;
  launch.prepared = std::move(plan);
  return launch;
}

void make_source(const ForwardRow& row, const Problem& problem, VarlenPlan& plan) {
  VarlenSource& source = plan.source;
  source.q = encode(kNoData, row.dtype, shape_of(problem, Operand::q), 64, plan.group);
  const TensorShape o = shape_of(problem, Operand::o);
  plan.output_begin = problem.total_q ? ragged_begin(o, 64, plan.group) : 0;
  source.o = problem.total_q ? encode_ragged(kNoData, row.dtype, o, 64, plan.group)
                             : encode(kNoData, row.dtype, o, 64, plan.group);
  // Without keys the maps must still be of something: what they load is masked and cleared.
  plan.keys = shape_of(problem, Operand::k).rows > 0;
  source.slices = loads_whole_tiles(problem);
  const auto map = [&](Operand operand, int columns) {
    return encode_tile(kNoData, row.dtype, shape_of(problem, plan.keys ? operand : Operand::q), row.tile.n, columns,
                       source.slices);
  };
  source.k = map(Operand::k, row.tile.d);
  source.v = map(Operand::v, row.tile.dv);
  source.group_log2 = std::countr_zero(static_cast<unsigned>(plan.group));
  source.heads_per_kv = static_cast<int>(problem.heads_q / plan.group / problem.heads_kv);
  source.splits = plan.splits;
  source.row_tiles = plan.row_tiles;
}

VarlenSource varlen_source(const VarlenPlan& plan, const Run& run) {
  const Buffers& buffers = run.buffers;
  auto* const workspace = static_cast<std::byte*>(run.workspace.data);
  VarlenSource source = plan.source;
  point_at(source.q, buffers.q);
  point_at(source.o, static_cast<const char*>(buffers.o) + plan.output_begin);
  point_at(source.k, plan.keys ? buffers.k : buffers.q);
  point_at(source.v, plan.keys ? buffers.v : buffers.q);
  source.lengths = lengths_of(run.problem, buffers);
  if (plan.listed) {
    source.tiles = reinterpret_cast<const PlacedTile*>(workspace + plan.tiles_at);
    source.tile_count = static_cast<const int*>(run.workspace.data) + kTileCountAt;
  }
  if (plan.splits > 1) {
    source.partial_lse = reinterpret_cast<float*>(workspace + plan.partial_lse_at);
    source.partial_o = reinterpret_cast<float*>(workspace + plan.partial_o_at);
    source.partial_rows = plan.rows;
  }
  return source;
}

Schedule varlen_schedule(const Problem& problem, const VarlenPlan& plan) {
  Schedule schedule{};
  schedule.heads = static_cast<int>(problem.heads_q / plan.group);
  schedule.section_heads = plan.section_heads;
  schedule.batch = static_cast<int>(problem.batch);
  schedule.row_tiles = plan.row_tiles;
  schedule.queued = 1;
  return schedule;
}

void before_varlen(const ForwardRow& row, const Run& run, const VarlenPlan& plan) {
  float* const max_logit = run.problem.return_max_logit ? run.buffers.max_logit : nullptr;
  if (!plan.listed && max_logit == nullptr) return;
  auto* const workspace = static_cast<std::byte*>(run.workspace.data);
  make_work_list({.lengths = lengths_of(run.problem, run.buffers),
                  .mask = plan.limits,
                  .rows_per_query = plan.group,
                  .tile_rows = row.tile.m,
                  .tile_keys = row.tile.n,
                  .capacity = plan.capacity,
                  .tiles = plan.listed ? reinterpret_cast<PlacedTile*>(workspace + plan.tiles_at) : nullptr,
                  .count = static_cast<int*>(run.workspace.data) + kTileCountAt,
                  .max_logit = max_logit,
                  .heads = static_cast<int>(run.problem.heads_q)},
                 run.stream.cuda);
}

void after_varlen(const Run& run, const VarlenPlan& plan) {
  if (plan.splits == 1) return;
  const Problem& problem = run.problem;
  const auto* const workspace = static_cast<const std::byte*>(run.workspace.data);
  const RowsOut o = rows_out(problem, run.buffers.o);
  merge_splits({.partial_o = reinterpret_cast<const float*>(workspace + plan.partial_o_at),
                .partial_lse = reinterpret_cast<const float*>(workspace + plan.partial_lse_at),
                .splits = plan.splits,
                .rows = plan.rows,
                .columns = o.columns,
                .heads = static_cast<int>(problem.heads_q),
                .rows_per_head = lse_layout(problem).head,
                .packed = problem.total_q.has_value(),
                .o = o.data,
                .dtype = problem.dtype,
                .o_batch = o.batch,
                .o_row = o.row,
                .o_head = o.head,
                .lse = problem.return_lse ? run.buffers.lse : nullptr,
                .sinks = problem.sinks ? run.buffers.sinks : nullptr},
               run.stream.cuda);
}

}  // namespace fattn::gpu::sm90
