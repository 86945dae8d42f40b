// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/forward_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "core/lower.hpp"
#include "cuda/device.hpp"
#include "cuda/sm90/plan_parts.hpp"

namespace fattn::gpu::sm90 {
namespace {

std::string decline_options(const ForwardRow& row, const Problem& problem) {
  if (!row.varlen) {
    if (problem.total_q || problem.total_k) return "cu_seqlens: this row has dense batches";
    if (problem.seqused_q || problem.seqused_k) return "seqused: this row has sequences of full length";
  }
  if (!row.modified) {
    if (problem.score.softcap != 0) return fmt::format("softcap = {}: this row has 0", problem.score.softcap);
    if (problem.score.alibi != Alibi::none) return "alibi: this row has none";
    if (problem.return_max_logit) return "max_logit: this row does not write it";
  }
  if (problem.kv_cache) return "kv_cache: this row has dense and packed keys and values";
  if (problem.mask.documents) return "mask = documents: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.prefix) return "mask = prefix: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.block_sparse) return "mask = block_sparse: this row has causal, causal_top_left, window, chunk";
  if (problem.score.bias) return "bias: this row has none";
  if (problem.dropout > 0) return fmt::format("dropout = {}: this row has 0", problem.dropout);
  if (problem.descale.kind != DescaleKind::none) return "descale: this row has none";
  return {};
}

IdentityScore score_of(double scale) {
  if (std::abs(scale) * kLog2eDouble < FLT_MIN)
    return {.scale_log2 = 1.f, .change_queries = 1, .query_and = 0, .query_xor = 0, .zero = 0};
  return {.scale_log2 = static_cast<float>(std::abs(scale) * kLog2eDouble),
          .change_queries = scale < 0,
          .query_and = ~0u,
          .query_xor = scale < 0 ? 0x80008000u : 0u,
          .zero = 0};
}

std::int64_t items_of(const Problem& problem, int m) {
  return (problem.seqlen_q + m - 1) / m * problem.heads_q * problem.batch;
}

bool few_items(const ForwardRow& row, const Problem& problem, const Device& device) {
  return !problem.batch_invariant && items_of(problem, row.tile.m) * 2 <= device.sm_count &&
         problem.seqlen_k >= 4 * kSplitKeys;
}

}  // namespace

bool loads_whole_tiles(const Problem& problem) {
  return problem.head_dim % kSliceColumns == 0 && head_dim_v(problem) % kSliceColumns == 0;
}

CUtensorMap encode_tile(const void* data, DType dtype, const TensorShape& tensor, int box_rows, int columns,
                        bool whole) {
  return whole ? encode_slices(data, dtype, tensor, box_rows, (columns + kSliceColumns - 1) / kSliceColumns)
               : encode(data, dtype, tensor, box_rows);
}

int heads_side_by_side(const ForwardRow& row, const Problem& problem) {
  const std::int64_t group = problem.heads_q / problem.heads_kv, m = row.tile.m;
  if (problem.batch_invariant || group == 1 || 64 % group != 0) return 1;
  const std::int64_t apart = (problem.seqlen_q + m - 1) / m * group, together = (problem.seqlen_q * group + m - 1) / m;
  return together * 2 <= apart ? static_cast<int>(group) : 1;
}

ModifiedScore modified_score(const Problem& problem) {
  ModifiedScore result{};
  static_cast<IdentityScore&>(result) = score_of(softmax_scale(problem));
  const double scale = std::abs(softmax_scale(problem)), cap = problem.score.softcap;
  result.modified = cap != 0 || problem.score.alibi != Alibi::none;
  result.raw_scale = static_cast<float>(scale);
  result.raw_log2 = static_cast<float>(scale * kLog2eDouble);
  if (cap != 0) {
    result.cap_in = static_cast<float>(2 * kLog2eDouble * scale / cap);
    result.cap_out = static_cast<float>(cap * kLog2eDouble);
  }
  if (result.modified) result.scale_log2 = 1.f;
  result.slopes_batch = problem.score.alibi == Alibi::per_head ? 0 : problem.heads_q;
  return result;
}

RowLayout lse_layout(const Problem& problem) {
  if (problem.total_q) return {0, *problem.total_q};
  return {problem.heads_q * problem.seqlen_q, problem.seqlen_q};
}

RowsOut rows_out(const Problem& problem, void* data) {
  const Strides stride = strides(problem, Operand::o);
  return {data, stride.batch, stride.seqlen, stride.head, static_cast<int>(head_dim_v(problem))};
}

std::string decline_forward(const ForwardRow& row, const Problem& problem, const Device& device) {
  if (std::string reason = decline_device(device); !reason.empty()) return reason;
  if (device.shared_memory_per_block < static_cast<std::int64_t>(row.shared_bytes))
    return fmt::format("shared_memory_per_block = {}: this row needs {}", device.shared_memory_per_block,
                       row.shared_bytes);
  if (problem.pass != Pass::forward) return fmt::format("pass = {}: this row has forward", to_string(problem.pass));
  if (problem.dtype != row.dtype)
    return fmt::format("dtype = {}: this row has {}", to_string(problem.dtype), to_string(row.dtype));
  if (output_dtype(problem) != row.dtype)
    return fmt::format("out_dtype = {}: this row has {}", to_string(output_dtype(problem)), to_string(row.dtype));
  if (std::string reason = decline_head_dim("head_dim", problem.head_dim, row.tile.d); !reason.empty()) return reason;
  if (std::string reason = decline_head_dim("head_dim_v", head_dim_v(problem), row.tile.dv); !reason.empty())
    return reason;
  if (std::string reason = decline_options(row, problem); !reason.empty()) return reason;
  if (std::string reason = decline_scale(problem); !reason.empty()) return reason;
  if (std::string reason = decline_holes(problem); !reason.empty()) return reason;
  if (problem.alignment < 16) return fmt::format("alignment = {}: this row needs 16", problem.alignment);
  for (const Operand operand : {Operand::q, Operand::k, Operand::v, Operand::o})
    if (std::string reason = decline_strides(to_string(operand), shape_of(problem, operand)); !reason.empty())
      return reason;
  if (items_of(problem, row.tile.m) > std::numeric_limits<int>::max() / 2 ||
      problem.heads_q * problem.batch > std::numeric_limits<int>::max() / 2)
    return fmt::format("batch * heads_q = {}: this row has up to 2^30 tiles of {} queries",
                       problem.batch * problem.heads_q, row.tile.m);
  if (problem.total_q.value_or(0) >= kUnbounded || problem.total_k.value_or(0) >= kUnbounded)
    return fmt::format("total_q = {}, total_k = {}: this row has less than 2^30", problem.total_q.value_or(0),
                       problem.total_k.value_or(0));
  const double keys = visible_pairs(problem) / static_cast<double>(problem.heads_q * problem.batch * problem.seqlen_q);
  if (keys < row.tile.keys_from)
    return fmt::format("{:.0f} visible keys a query: this row has from {}", keys, row.tile.keys_from);
  if (!row.varlen && few_items(row, problem, device))
    return fmt::format(
        "seqlen_q = {} with batch * heads_q = {}: too few tiles of {} queries for {} multiprocessors, left to the row "
        "that splits keys",
        problem.seqlen_q, problem.batch * problem.heads_q, row.tile.m, device.sm_count);
  if (const int heads = heads_side_by_side(row, problem); !row.varlen && heads > 1)
    return fmt::format(
        "seqlen_q = {}: tiles of {} queries, left to the row that puts the {} heads of a group side by side",
        problem.seqlen_q, row.tile.m, heads);
  return {};
}

ForwardPlan plan_forward(const ForwardRow& row, const Problem& problem) {
  const Band band = band_of(problem);
  const int m = row.tile.m, seqlen_q = static_cast<int>(problem.seqlen_q);
  ForwardPlan plan{};
  plan.limits = lower_band(problem.mask);
  plan.score = modified_score(problem);
  plan.keys_begin = band.visible(0).begin;
  const bool some = std::int64_t{band.left} + band.right >= 0;  // else every interval is empty
  plan.keys_end = some ? std::max(band.visible(seqlen_q - 1).end, plan.keys_begin) : plan.keys_begin;

  Schedule& schedule = plan.schedule;
  schedule.heads = static_cast<int>(problem.heads_q);
  schedule.batch = static_cast<int>(problem.batch);
  schedule.row_tiles = (seqlen_q + m - 1) / m;
  schedule.items = static_cast<int>(items_of(problem, m));
  // Where all row tiles take equally long, the heads that share keys go one after the other. Else some go together, so
  // that the longest come first; sections are even.
  const TileWalk first = walk_tiles(band, 0, std::min(m, seqlen_q), row.tile.n);
  const TileWalk last = walk_tiles(band, (schedule.row_tiles - 1) * m, seqlen_q, row.tile.n);
  schedule.queued = first.end - first.begin != last.end - last.begin;
  // Rows that are missing to whole tiles are better missing where keys are few: d 64 causal 4k 528 against 502 TFLOP/s.
  // Whole warpgroups, because the copy engine cannot store a box that begins before row 0.
  if (first.end - first.begin < last.end - last.begin)
    schedule.first_row = -((schedule.row_tiles * m - seqlen_q) / 64 * 64);
  const std::int64_t group = problem.heads_q / problem.heads_kv, pairs = problem.heads_kv * problem.batch;
  std::int64_t together = 1;
  if (schedule.queued) {
    const std::int64_t heads = std::min<std::int64_t>(kSectionItems * m / 128 / schedule.row_tiles, kSectionHeads);
    together = std::clamp<std::int64_t>(heads / group, 1, pairs);
    const std::int64_t sections = (pairs + together - 1) / together;
    together = (pairs + sections - 1) / sections;
  }
  schedule.section_heads = static_cast<int>(together * group);
  return plan;
}

Launch launch_forward(const ForwardRow& row, const Problem& problem, const Device& device) {
  auto plan = std::make_shared<ForwardPlan>(plan_forward(row, problem));
  if (device.index >= 0) plan->source = dense_source(row, problem, *plan);
  Launch launch;
  launch.shape = {
      .tile = fmt::format("{}x{}, {}+{} stages", row.tile.m, row.tile.n, row.tile.k_stages, row.tile.v_stages),
      .grid = std::min<std::int64_t>(plan->schedule.items, device.sm_count),
      .threads = row.tile.threads(),
      .shared_memory_bytes = static_cast<std::int64_t>(row.shared_bytes)};
  launch.workspace_bytes = plan->schedule.queued ? 2 * sizeof(int) : 0;  // the work counters
  launch.prepared = std::move(plan);
  return launch;
}

DenseSource dense_source(const ForwardRow& row, const Problem& problem, const ForwardPlan& plan) {
  DenseSource source{};
  source.first_key = plan.keys_begin;
  source.heads_per_kv = static_cast<int>(problem.heads_q / problem.heads_kv);
  source.seqlen_q = static_cast<int>(problem.seqlen_q);
  source.seqlen_k = static_cast<int>(problem.seqlen_k);
  const bool whole = loads_whole_tiles(problem);
  const auto map = [&](const TensorShape& shape, int rows, int columns) {
    return encode_tile(kNoData, row.dtype, shape, rows, columns, whole);
  };
  source.slices = whole;
  source.q = map(shape_of(problem, Operand::q), 64, row.tile.d);
  source.o = encode(kNoData, row.dtype, shape_of(problem, Operand::o), 64);
  // Where no query sees a key, the maps must still be of something: rows before its first read as zeros.
  if (plan.keys_begin == plan.keys_end) {
    source.first_key = 1 << 29;
    source.heads_per_kv = 1;
    source.k = map(shape_of(problem, Operand::q), row.tile.n, row.tile.d);
    source.v = map(shape_of(problem, Operand::o), row.tile.n, row.tile.dv);
    return source;
  }
  const auto seen = [&](Operand operand, int columns) {
    TensorShape shape = shape_of(problem, operand);
    shape.rows = plan.keys_end - plan.keys_begin;
    return map(shape, row.tile.n, columns);
  };
  source.k = seen(Operand::k, row.tile.d);
  source.v = seen(Operand::v, row.tile.dv);
  return source;
}

DenseSource dense_source(const Problem& problem, const ForwardPlan& plan, const Buffers& buffers) {
  DenseSource source = plan.source;
  const bool keys = plan.keys_begin != plan.keys_end;
  const auto first = [&](Operand operand, const void* data) {
    return static_cast<const char*>(data) + 2 * strides(problem, operand).seqlen * plan.keys_begin;
  };
  point_at(source.q, buffers.q);
  point_at(source.o, buffers.o);
  point_at(source.k, keys ? first(Operand::k, buffers.k) : buffers.q);
  point_at(source.v, keys ? first(Operand::v, buffers.v) : buffers.o);
  return source;
}

}  // namespace fattn::gpu::sm90
