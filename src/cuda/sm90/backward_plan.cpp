// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/backward_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "core/lower.hpp"
#include "cuda/common/key_list.hpp"
#include "cuda/device.hpp"
#include "cuda/sm90/plan_parts.hpp"

namespace fattn::gpu::sm90 {
namespace {

constexpr int kStoredKeys = 64;  // rows of dK and dV that a warpgroup writes
constexpr std::int64_t kMostRows = std::int64_t{1} << 31;

std::string decline_options(const BackwardRow& row, const Problem& problem) {
  if (!row.varlen) {
    if (problem.total_q || problem.total_k) return "cu_seqlens: this row has dense batches";
    if (problem.seqused_q || problem.seqused_k) return "seqused: this row has sequences of full length";
  }
  if (problem.kv_cache) return "kv_cache: this row has dense keys and values";
  if (problem.mask.documents) return "mask = documents: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.prefix) return "mask = prefix: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.block_sparse) return "mask = block_sparse: this row has causal, causal_top_left, window, chunk";
  if (!row.modified) {
    if (problem.score.softcap != 0) return fmt::format("softcap = {}: this row has 0", problem.score.softcap);
    if (problem.score.alibi != Alibi::none) return "alibi: this row has none";
  }
  if (problem.score.bias) return "bias: this row has none";
  if (problem.dropout > 0) return fmt::format("dropout = {}: this row has 0", problem.dropout);
  if (problem.descale.kind != DescaleKind::none) return "descale: this row has none";
  return {};
}

ShapedScore score_of(const Problem& problem) {
  const double scale = softmax_scale(problem), cap = problem.score.softcap;
  ShapedScore score{};
  score.scale = static_cast<float>(scale);
  score.raw_log2 = static_cast<float>(scale * kLog2eDouble);
  score.modified = cap != 0 || problem.score.alibi != Alibi::none;
  score.scale_log2 = score.modified ? 1.f : score.raw_log2;
  if (cap != 0) {
    score.cap_in = static_cast<float>(2 * kLog2eDouble * scale / cap);
    score.cap_out = static_cast<float>(cap * kLog2eDouble);
  }
  score.slopes_batch = problem.score.alibi == Alibi::per_head ? 0 : problem.heads_q;
  return score;
}

// Can rows be read and written 16 bytes at a time?
bool in_chunks(const TensorShape& tensor) { return tensor.strides.dim == 1 && decline_strides("", tensor).empty(); }

// Tiles of queries of one head and one batch of the workspace, where packed sequences share one.
std::int64_t query_tiles_of(const BackwardRow& row, const Problem& problem) {
  if (problem.total_q) return *problem.total_q / row.tile.m + problem.batch + 1;
  return (problem.seqlen_q + row.tile.m - 1) / row.tile.m;
}

std::int64_t padded_rows(const BackwardRow& row, const Problem& problem) {
  return query_tiles_of(row, problem) * row.tile.m * problem.heads_q * (problem.total_q ? 1 : problem.batch);
}

// Tiles of keys of one head, of all sequences.
std::int64_t key_tiles_of(const BackwardRow& row, const Problem& problem) {
  if (problem.total_k) return *problem.total_k == 0 ? 0 : key_list_capacity(lengths_of(problem, {}), row.tile.n);
  return (problem.seqlen_k + row.tile.n - 1) / row.tile.n * problem.batch;
}

std::string decline_sizes(const BackwardRow& row, const Problem& problem) {
  if (padded_rows(row, problem) >= kMostRows)
    return fmt::format("heads_q = {} with {} queries: this row has less than 2^31 in tiles of {}", problem.heads_q,
                       problem.total_q.value_or(problem.batch * problem.seqlen_q), row.tile.m);
  if (problem.total_q.value_or(0) >= kUnbounded || problem.total_k.value_or(0) >= kUnbounded)
    return fmt::format("total_q = {}, total_k = {}: this row has less than 2^30", problem.total_q.value_or(0),
                       problem.total_k.value_or(0));
  const std::int64_t tiles = key_tiles_of(row, problem) * problem.heads_kv;
  if (tiles >= kMostRows / 2)
    return fmt::format("batch * heads_kv = {}: this row has less than 2^30 tiles of {} keys",
                       problem.batch * problem.heads_kv, row.tile.n);
  return {};
}

// Both ask for sums in a fixed order.
bool takes_turns(const Problem& problem) { return problem.deterministic || problem.batch_invariant; }

// Queries of a key head, with gradients and sums, that half of the L2 cache keeps, or 4/5 where that is faster.
int section_rows(const BackwardRow& row, const Problem& problem, const Device& device) {
  const std::int64_t bytes = row.tile.d > 64 && !takes_turns(problem) ? device.l2_bytes / 2 : device.l2_bytes * 4 / 5;
  return static_cast<int>(bytes / (problem.heads_q / problem.heads_kv * row.tile.d * 8));
}

BackwardSchedule schedule_of(const BackwardRow& row, const Problem& problem, const Device& device) {
  const int m = row.tile.m, n = row.tile.n;
  const Band band = band_of(problem);
  BackwardSchedule schedule{};
  schedule.heads = static_cast<int>(problem.heads_kv);
  schedule.batch = static_cast<int>(problem.batch);
  schedule.key_tiles = static_cast<int>((problem.seqlen_k + n - 1) / n);
  const std::int64_t pairs = problem.heads_kv * problem.batch;
  schedule.items = static_cast<int>(key_tiles_of(row, problem) * problem.heads_kv);
  schedule.section_heads = 1;
  schedule.direction = takes_turns(problem) ? -1 : 1;
  if (schedule.items == 0 || problem.total_k) return schedule;
  // Key tiles that take equally long go head by head. Else as many heads go together as fit in the L2 cache, so
  // that the longest come first. So they do where blocks take turns: one that follows another then starts after it.
  const TileRange first = BackwardSchedule::query_tiles(band, 0, m, n);
  const TileRange last = BackwardSchedule::query_tiles(band, (schedule.key_tiles - 1) * n, m, n);
  if (first.end - first.begin == last.end - last.begin && !takes_turns(problem)) {
    schedule.spread = !row.varlen;
    return schedule;
  }
  const std::int64_t most = std::min(pairs, std::int64_t{std::numeric_limits<int>::max() / schedule.key_tiles});
  // Few key tiles of a head at a time where they take turns and get shorter: each waits for those before it.
  const bool waits = takes_turns(problem) && first.end - first.begin != last.end - last.begin;
  const std::int64_t apart = std::min<std::int64_t>(waits ? (device.sm_count + 7) / 8 : 1, most);
  std::int64_t section = std::clamp<std::int64_t>(section_rows(row, problem, device) / problem.seqlen_q, apart, most);
  // A short last section leaves blocks without work while its long items run.
  const std::int64_t least = takes_turns(problem) ? section : section / 2;
  while (section > least && pairs % section != 0 && pairs % section < section / 2) section--;
  schedule.section_heads = static_cast<int>(section);
  return schedule;
}

// Teams for additions of wide heads in a fixed order, where every key tile sees the last query tile, so that workers
// can follow each other; or none.
BackwardSchedule in_teams(const BackwardRow& row, const Problem& problem, const Device& device,
                          const BackwardSchedule& alone) {
  const int m = row.tile.m, n = row.tile.n, blocks = static_cast<int>(device.sm_count);
  if (!row.tile.wide || row.varlen || !problem.deterministic || alone.items < 2) return alone;
  if (problem.batch_invariant) return alone;  // the order of a team depends on its size, and that on the batch
  const Band band = band_of(problem);
  const TileRange first = BackwardSchedule::query_tiles(band, 0, m, n);
  const TileRange last = BackwardSchedule::query_tiles(band, (alone.key_tiles - 1) * n, m, n);
  const int query_tiles = static_cast<int>((problem.seqlen_q + m - 1) / m);
  if (first.begin != 0 || first.end != query_tiles || last.end != query_tiles) return alone;
  if (std::int64_t{query_tiles + 1} * blocks >= kMostRows / 2) return alone;  // TeamTurns counts in 30 bits
  const bool paired = last.begin > 0;
  const int pairs = alone.heads * alone.batch, units = paired ? ceil_div(pairs, 2) : pairs;
  const double steps = static_cast<double>(query_tiles) * static_cast<double>(problem.heads_q) / alone.heads;
  // Time in items of a block. Those that wait for each other in the order of the key tiles lose by that: measured on an
  // H200, as are the factors below (docs/sm90_backward.md).
  double least = std::max(1., static_cast<double>(alone.items) / blocks) * 1.3;
  BackwardSchedule best = alone;
  for (int workers = 1; workers <= std::min(blocks, alone.key_tiles); workers++) {
    BackwardSchedule next = alone;
    next.workers = workers;
    next.paired = paired;
    next.teams = std::min(blocks / workers, units);
    next.items = next.team_items();
    double time = static_cast<double>(next.items) / next.blocks();
    // Query tiles between one worker and the next: passing a turn on takes longer than a step. Workers that come back
    // to a head wait at its beginning, for a step or two.
    const double apart =
        paired ? static_cast<double>(next.rounds()) * n / m : static_cast<double>(query_tiles) / workers;
    if (workers > 1 && apart < 2) time *= paired ? 1.055 : 1.2;
    if (paired && next.rounds() > 1) time *= 1 + 2 / steps;
    const double rows = static_cast<double>(next.teams) * static_cast<double>(problem.seqlen_q);
    time *= 1 + std::max(0., rows / section_rows(row, problem, device) - .75) / 2.5;
    if (time >= least) continue;
    least = time;
    best = next;
  }
  return best;
}

// Where the first to add to a part of dQ writes instead, those after it wait for that.
bool asks_turns(const BackwardRow& row, bool deterministic) { return deterministic || !row.tile.wide; }

BackwardWorkspace workspace_of(const BackwardRow& row, const Problem& problem, bool deterministic, bool copy_dout) {
  const auto rows = static_cast<std::size_t>(padded_rows(row, problem));
  const std::size_t parts = rows / row.tile.m * row.tile.compute_warpgroups();
  const TensorShape dout = shape_of(problem, Operand::dout);
  const auto elements = static_cast<std::size_t>(dout.batch * dout.rows * dout.heads * dout.columns);
  BackwardWorkspace workspace{};
  const auto take = [&](std::size_t bytes) {
    const std::size_t at = workspace.bytes;
    workspace.bytes += (bytes + 255) / 256 * 256;
    return at;
  };
  workspace.dq = take(rows * row.tile.d * sizeof(float));
  workspace.lse = take(rows * sizeof(float));
  workspace.delta = take(rows * sizeof(float));
  workspace.turns = take(asks_turns(row, deterministic) ? parts * sizeof(int) : 0);
  workspace.ticket = take(sizeof(int));
  workspace.dout = take(copy_dout ? elements * 2 : 0);
  const auto lengths = static_cast<std::size_t>(problem.batch + 1) * sizeof(std::int32_t);
  workspace.cu_seqlens_q = take(problem.total_q ? lengths : 0);
  workspace.cu_seqlens_k = take(problem.total_k ? lengths : 0);
  workspace.tiles = take(problem.total_k ? static_cast<std::size_t>(key_tiles_of(row, problem)) * sizeof(WorkTile) : 0);
  workspace.tile_count = take(problem.total_k ? sizeof(int) : 0);
  return workspace;
}

RowTensor row_tensor(const Problem& problem, Operand operand, const void* data) {
  const TensorShape shape = shape_of(problem, operand);
  return {const_cast<void*>(data), shape.strides, in_chunks(shape), static_cast<int>(shape.columns)};
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
  if (std::string reason = decline_head_dim("head_dim", problem.head_dim, row.tile.d); !reason.empty()) return reason;
  if (std::string reason = decline_head_dim("head_dim_v", head_dim_v(problem), row.tile.d); !reason.empty())
    return reason;
  if (std::string reason = decline_options(row, problem); !reason.empty()) return reason;
  if (std::string reason = decline_scale(problem); !reason.empty()) return reason;
  if (std::string reason = decline_holes(problem); !reason.empty()) return reason;
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
  plan.score = score_of(problem);
  plan.alone = schedule_of(row, problem, device);
  plan.schedule = in_teams(row, problem, device, plan.alone);
  plan.query_tiles = static_cast<int>(query_tiles_of(row, problem));
  plan.capacity = problem.total_k ? static_cast<int>(key_tiles_of(row, problem)) : 0;
  plan.section_rows = section_rows(row, problem, device);
  plan.keys_begin = band.visible(0).begin;
  const bool some = std::int64_t{band.left} + band.right >= 0;  // else every interval is empty
  plan.keys_end = some ? std::max(band.visible(band.seqlen_q - 1).end, plan.keys_begin) : plan.keys_begin;
  plan.deterministic = takes_turns(problem);
  plan.zeroed = row.tile.wide;
  plan.shift = weight_shift(row.dtype, row.tile);
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
                  .grid = plan->schedule.workers > 0 ? plan->schedule.blocks()
                                                     : std::min<std::int64_t>(plan->schedule.items, device.sm_count),
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
  rows.turns = at.ticket > at.turns ? reinterpret_cast<int*>(base + at.turns) : nullptr;
  rows.in_turn = plan.deterministic;
  rows.zeroed = plan.zeroed;
  rows.ticket = reinterpret_cast<int*>(base + at.ticket);
  rows.heads_q = static_cast<int>(problem.heads_q);
  rows.query_tiles = plan.query_tiles;
  rows.shift = plan.shift;
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
  params.lengths = lengths_of(problem, buffers);
  const auto* const base = static_cast<const char*>(workspace);
  if (problem.total_q)
    params.lengths.q.cu_seqlens = reinterpret_cast<const std::int32_t*>(base + plan.workspace.cu_seqlens_q);
  if (problem.total_k)
    params.lengths.k.cu_seqlens = reinterpret_cast<const std::int32_t*>(base + plan.workspace.cu_seqlens_k);
  params.lse_layout = problem.total_q ? RowLayout{0, *problem.total_q}
                                      : RowLayout{problem.heads_q * problem.seqlen_q, problem.seqlen_q};
  params.batch = static_cast<int>(problem.total_q ? 1 : problem.batch);
  params.rows = backward_rows(problem, plan, workspace);
  return params;
}

namespace {

// dO, or the copy of it.
TensorShape dout_shape(const Problem& problem, const BackwardPlan& plan) {
  TensorShape dout = shape_of(problem, Operand::dout);
  if (plan.copy_dout)
    dout.strides = {
        .batch = dout.rows * dout.heads * dout.columns, .seqlen = dout.heads * dout.columns, .head = dout.columns};
  return dout;
}

}  // namespace

DenseTensors dense_tensors(const BackwardRow& row, const Problem& problem, const BackwardPlan& plan,
                           const BackwardRowParams& params, const Buffers& buffers) {
  DenseTensors source{};
  source.first_key = plan.keys_begin;
  source.heads_per_kv = static_cast<int>(problem.heads_q / problem.heads_kv);
  source.seqlen_q = params.lengths.q.seqlen;
  source.seqlen_k = params.lengths.k.seqlen;
  source.dk = encode(buffers.dk, row.dtype, shape_of(problem, Operand::dk), kStoredKeys);
  source.dv = encode(buffers.dv, row.dtype, shape_of(problem, Operand::dv), kStoredKeys);
  if (plan.keys_begin == plan.keys_end) return source;  // nothing is loaded
  source.q = encode(buffers.q, row.dtype, shape_of(problem, Operand::q), row.tile.m);
  source.dout =
      encode(plan.copy_dout ? params.dout_copy : buffers.dout, row.dtype, dout_shape(problem, plan), row.tile.m);
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

VarlenTensors varlen_tensors(const BackwardRow& row, const Problem& problem, const BackwardPlan& plan,
                             const BackwardRowParams& params, const Run& run) {
  const Buffers& buffers = run.buffers;
  const auto map = [&](Operand operand, const void* data, int rows) {
    return encode_ragged(data, row.dtype, shape_of(problem, operand), rows);
  };
  VarlenTensors source{};
  source.q = map(Operand::q, buffers.q, row.tile.m);
  source.k = map(Operand::k, buffers.k, row.tile.n);
  source.v = map(Operand::v, buffers.v, row.tile.n);
  source.dk = map(Operand::dk, buffers.dk, kStoredKeys);
  source.dv = map(Operand::dv, buffers.dv, kStoredKeys);
  source.dout =
      encode_ragged(plan.copy_dout ? params.dout_copy : buffers.dout, row.dtype, dout_shape(problem, plan), row.tile.m);
  source.lengths = params.lengths;
  source.slices = static_cast<int>((problem.head_dim + 63) / 64);
  source.slices_v = static_cast<int>((head_dim_v(problem) + 63) / 64);
  source.heads_per_kv = static_cast<int>(problem.heads_q / problem.heads_kv);
  source.section_rows = plan.section_rows;
  if (plan.capacity > 0) {
    const auto* const base = static_cast<const char*>(run.workspace.data);
    source.tiles = reinterpret_cast<const WorkTile*>(base + plan.workspace.tiles);
    source.tile_count = reinterpret_cast<const int*>(base + plan.workspace.tile_count);
  }
  return source;
}

void before_backward(const BackwardRow& row, const BackwardPlan& plan, const Run& run) {
  const Problem& problem = run.problem;
  const bool packed_q = problem.total_q.has_value(), packed_k = problem.total_k.has_value();
  if (!packed_q && !packed_k) return;
  auto* const base = static_cast<char*>(run.workspace.data);
  const BackwardWorkspace& at = plan.workspace;
  make_key_list({.lengths = lengths_of(problem, run.buffers),
                 .cu_seqlens_q = packed_q ? reinterpret_cast<std::int32_t*>(base + at.cu_seqlens_q) : nullptr,
                 .cu_seqlens_k = packed_k ? reinterpret_cast<std::int32_t*>(base + at.cu_seqlens_k) : nullptr,
                 .tiles = plan.capacity > 0 ? reinterpret_cast<WorkTile*>(base + at.tiles) : nullptr,
                 .count = plan.capacity > 0 ? reinterpret_cast<int*>(base + at.tile_count) : nullptr,
                 .tile_keys = row.tile.n,
                 .capacity = plan.capacity},
                run.stream.cuda);
}

}  // namespace fattn::gpu::sm90
