// SPDX-License-Identifier: Apache-2.0
#include "cpu/backward.hpp"

#include <atomic>
#include <cstring>
#include <string>

#include "cpu/block_order.hpp"
#include "cpu/threads.hpp"

namespace fattn::host {
namespace {

constexpr std::int64_t kZeroBlock = 1 << 16;  // floats

BiasGradient bias_gradient_of(const Problem& problem) {
  if (!problem.dbias) return BiasGradient::none;
  const Bias& bias = *problem.score.bias;
  if (!bias.keys) return BiasGradient::queries;
  return bias.queries ? BiasGradient::matrix : BiasGradient::keys;
}

// (batch, key head) pairs come in groups that run side by side. Blocks of different groups may add to the same element
// of dbias, so the groups take turns.
std::int64_t turns_of(const Problem& problem, BiasGradient gradient) {
  if (gradient != BiasGradient::matrix) return 1;
  const Bias& bias = *problem.score.bias;
  return (bias.batch ? 1 : problem.batch) * (bias.heads ? 1 : problem.heads_kv);
}

std::int64_t bias_elements(const Problem& problem) {
  const Bias& bias = *problem.score.bias;
  return (bias.batch ? problem.batch : 1) * (bias.heads ? problem.heads_q : 1) * (bias.queries ? problem.seqlen_q : 1) *
         (bias.keys ? problem.seqlen_k : 1);
}

// A range of floats as zeroing items.
void zero_block(float* data, std::int64_t count, std::int64_t block) {
  const std::int64_t begin = block * kZeroBlock, size = std::min(kZeroBlock, count - begin);
  std::memset(data + begin, 0, static_cast<std::size_t>(size) * sizeof(float));
}

// One slice of dbias: the sums of the heads and batches that share it, in order.
void reduce_dbias(const BackwardWork& work, std::int64_t slice) {
  const BackwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const Problem& p = g.problem;
  const Bias& bias = *p.score.bias;
  const bool over_keys = plan.bias_gradient == BiasGradient::keys;
  const std::int64_t heads = bias.heads ? p.heads_q : 1;
  const std::int64_t batch_begin = bias.batch ? slice / heads : 0, batch_end = bias.batch ? batch_begin + 1 : p.batch;
  const std::int64_t head_begin = bias.heads ? slice % heads : 0, head_end = bias.heads ? head_begin + 1 : p.heads_q;
  const std::int64_t width = over_keys ? p.seqlen_k : bias.queries ? p.seqlen_q : 1;
  float* const out = work.buffers.dbias + slice * width;
  double total = 0;
  std::memset(out, 0, static_cast<std::size_t>(width) * sizeof(float));
  for (std::int64_t batch = batch_begin; batch < batch_end; ++batch) {
    const Rows rows = over_keys ? g.keys(work.buffers, batch) : g.queries(work.buffers, batch);
    const std::int64_t first = over_keys ? work.k_row(batch, rows) : work.q_row(batch, rows);
    for (std::int64_t head = head_begin; head < head_end; ++head) {
      const float* const sums = work.sums.dbias + head * (over_keys ? plan.k_rows : plan.q_rows) + first;
      for (int row = 0; row < rows.length; ++row) {
        if (width == 1) {
          total += static_cast<double>(sums[row]);
        } else {
          out[row] += sums[row];
        }
      }
    }
  }
  if (width == 1) out[0] = static_cast<float>(total);
}

// Until the row has done so many steps. Whoever does them is at work: an item waits for earlier items only.
void wait_for_steps(std::int32_t& steps, std::int64_t wanted) {
  const std::atomic_ref<std::int32_t> done(steps);
  for (std::int32_t seen; (seen = done.load(std::memory_order_acquire)) < wanted;) {
    done.wait(seen, std::memory_order_acquire);
  }
}

void reduce_dsink(const BackwardWork& work) {
  const Problem& p = work.plan.geometry.problem;
  const std::int64_t parts = p.batch * work.plan.q_tiles;
  for (std::int64_t head = 0; head < p.heads_q; ++head) {
    double total = 0;
    for (std::int64_t i = 0; i < parts; ++i) total += static_cast<double>(work.sums.dsink[head * parts + i]);
    work.buffers.dsink[head] = static_cast<float>(total);
  }
}

}  // namespace

BackwardPlan::BackwardPlan(const Problem& problem, const Device& device, const Blocking& block,
                           std::optional<Tile> chosen)
    : geometry(problem),
      q(problem, Operand::q),
      k(problem, Operand::k),
      v(problem, Operand::v),
      o(problem, Operand::o),
      dout(problem, Operand::dout),
      dq(problem, Operand::dq),
      dk(problem, Operand::dk),
      dv(problem, Operand::dv),
      tile(chosen.value_or(backward_tile(block, geometry.d, geometry.dv, l2_bytes(device)))),
      blocking(block),
      bias_gradient(bias_gradient_of(problem)),
      chunk(kBackwardChunk),
      chunks(ceil_div64(std::max(problem.seqlen_q, problem.seqlen_k), chunk)),
      turns(turns_of(problem, bias_gradient)),
      // At least one, so that rows past the lengths are written.
      q_tiles(std::max<std::int64_t>(1, ceil_div64(problem.seqlen_q, tile.q))),
      k_tiles(std::max<std::int64_t>(1, ceil_div64(problem.seqlen_k, tile.k))),
      q_rows(problem.total_q.value_or(problem.batch * problem.seqlen_q) + problem.batch * kSpill),
      k_rows(problem.total_k.value_or(problem.batch * problem.seqlen_k) + problem.batch * kSpill),
      d(ceil_div64(geometry.d, block.panel) * block.panel),
      dv_columns(ceil_div64(geometry.dv, block.panel) * block.panel),
      transposed(block.pairs && geometry.plain && !geometry.hides && !geometry.drops) {
  const std::int64_t side_by_side = problem.batch * problem.heads_kv / turns * std::max<std::int64_t>(1, chunks);
  lanes = static_cast<int>(std::clamp<std::int64_t>(side_by_side, 1, std::max(1, device.threads)));
  Carver lane(nullptr), sums(nullptr);
  BackwardScratch(lane, *this);
  BackwardSums(sums, *this);
  std::size_t lane_used = lane.used();
  if (transposed) {
    Carver other(nullptr);
    TransposedScratch(other, *this);
    lane_used = std::max(lane_used, other.used());
  }
  lane_bytes = (lane_used + 255) / 256 * 256;
  workspace_bytes = sums.used() + static_cast<std::size_t>(lanes) * lane_bytes;
}

BackwardSums::BackwardSums(Carver& carver, const BackwardPlan& plan) {
  const Problem& p = plan.geometry.problem;
  const std::size_t before = carver.used();
  dq = carver.take<float>(p.heads_q * plan.q_rows * plan.d);
  dk = carver.take<float>(p.heads_kv * plan.k_rows * plan.d);
  dv = carver.take<float>(p.heads_kv * plan.k_rows * plan.dv_columns);
  dbias = nullptr;
  if (plan.bias_gradient == BiasGradient::queries) dbias = carver.take<float>(p.heads_q * plan.q_rows);
  if (plan.bias_gradient == BiasGradient::keys) dbias = carver.take<float>(p.heads_q * plan.k_rows);
  zeroed = static_cast<std::int64_t>((carver.used() - before) / sizeof(float));
  delta = carver.take<float>(p.heads_q * plan.q_rows);
  dsink = carver.take<float>(p.dsink ? p.heads_q * p.batch * plan.q_tiles : 0);
  steps = carver.take<std::int32_t>(p.batch * p.heads_kv * plan.chunks);
}

BackwardScratch::BackwardScratch(Carver& carver, const BackwardPlan& plan) {
  const Tile tile = plan.tile;
  const bool pairs = plan.blocking.pairs;
  k = carver.operand(tile.k * plan.d, pairs);
  k_transposed = carver.operand(tile.k * plan.d, pairs);
  v_transposed = carver.operand(tile.k * plan.dv_columns, pairs);
  q = carver.operand(pairs ? tile.q * plan.d : std::max(tile.q * plan.d, 2 * plan.blocking.panel * plan.dv_columns),
                     pairs);
  dout = carver.operand(tile.q * plan.dv_columns, pairs);
  p = carver.take<float>(tile.q * tile.k);
  ds = carver.take<float>(tile.q * tile.k);
  q_rows = dout_rows = copy = weights = wide = nullptr;
  if (pairs) {
    q_rows = carver.operand(tile.q * plan.d, pairs);
    dout_rows = carver.operand(tile.q * plan.dv_columns, pairs);
    copy = carver.operand(tile.k * std::max(plan.d, plan.dv_columns), pairs);
    weights = carver.operand(tile.q * tile.k, pairs);
    if (plan.o.dtype != DType::bf16) wide = carver.take<float>(2 * plan.blocking.panel * plan.dv_columns);
  }
  bias = plan.geometry.problem.score.bias ? carver.take<float>(tile.q * tile.k) : nullptr;
  first = carver.take<int>(tile.q);
  last = carver.take<int>(tile.q);
  marks = plan.geometry.hides || plan.geometry.drops ? carver.take<int>(tile.q * tile.k) : nullptr;
  seen_q = carver.take<bool>(tile.q);
  seen_k = carver.take<bool>(tile.k);
}

TransposedScratch::TransposedScratch(Carver& carver, const BackwardPlan& plan) {
  const std::int64_t n = plan.chunk, keys = plan.tile.k, panel = plan.blocking.panel;
  const auto operand = [&](std::int64_t count) { return carver.take<std::uint16_t>(count); };
  k = operand(keys * plan.d);
  v = operand(keys * plan.dv_columns);
  k_columns = operand(keys * plan.d);
  q = operand(n * plan.d);
  dout = operand(n * plan.dv_columns);
  q_rows = operand(n * plan.d);
  dout_rows = operand(n * plan.dv_columns);
  p = operand(keys * n);
  ds = operand(keys * n);
  stride = n;
  half = plan.blocking.whole_tiles ? keys * panel / 2 : panel / 2;
  pairs_half = plan.blocking.whole_tiles ? half / 2 : half;
  slot_floats = keys * panel;
  s = carver.take<float>(2 * slot_floats);
  dp = carver.take<float>(2 * slot_floats);
  pairs = operand(2 * slot_floats);
  copy = operand(keys * std::max(plan.d, plan.dv_columns));
  lse = carver.take<float>(n);
  delta = carver.take<float>(n);
  first = carver.take<int>(n);
  last = carver.take<int>(n);
  seen_q = carver.take<bool>(n);
  seen_k = carver.take<bool>(keys);
  loaded = carver.take<std::int64_t>(1);
}

Launch prepare_backward(const Problem& problem, const Device& device, const Blocking& blocking,
                        std::optional<Tile> tile) {
  const auto plan = std::make_shared<const BackwardPlan>(problem, device, blocking, tile);
  if (device.index >= 0) shared_pool(plan->lanes);
  Launch launch;
  launch.shape.tile = std::to_string(plan->tile.q) + "x" + std::to_string(plan->tile.k) + " " + blocking.text +
                      ", L2 " + std::to_string(l2_bytes(device) >> 10) + " KiB, blocks of " +
                      std::to_string(plan->chunk);
  launch.shape.grid = problem.batch * problem.heads_kv * plan->chunks * plan->chunks;
  launch.shape.threads = plan->lanes;
  launch.workspace_bytes = plan->workspace_bytes;
  launch.prepared = plan;
  return launch;
}

void run_backward(const Run& run, const BackwardParts& parts) {
  const auto& plan = *static_cast<const BackwardPlan*>(run.launch.prepared.get());
  const Problem& p = run.problem;
  Carver carver(run.workspace.data);
  const BackwardSums sums(carver, plan);
  const BackwardWork work{plan, run.buffers, sums, static_cast<char*>(run.workspace.data) + carver.used()};
  Executor* const executor = run.stream.executor != nullptr ? run.stream.executor : shared_pool();

  // Zero what is summed up; delta of every query.
  const std::int64_t matrix = plan.bias_gradient == BiasGradient::matrix ? bias_elements(p) : 0;
  const std::int64_t sum_blocks = ceil_div64(sums.zeroed, kZeroBlock), bias_blocks = ceil_div64(matrix, kZeroBlock);
  const std::int64_t zero_blocks = sum_blocks + bias_blocks, q_items = p.batch * p.heads_q * plan.q_tiles;
  for_each_item(executor, plan.lanes, zero_blocks + q_items, [&](std::int64_t item, int lane) {
    if (item < sum_blocks) return zero_block(sums.dq, sums.zeroed, item);
    if (item < zero_blocks) return zero_block(run.buffers.dbias, matrix, item - sum_blocks);
    const std::int64_t i = item - zero_blocks, head = i / plan.q_tiles % p.heads_q;
    parts.delta(work, i / plan.q_tiles / p.heads_q, head, i % plan.q_tiles, lane);
  });

  // The blocks.
  const std::int64_t n = plan.chunks;
  std::memset(sums.steps, 0, static_cast<std::size_t>(p.batch * p.heads_kv * n) * sizeof(std::int32_t));
  const Bias bias = p.score.bias.value_or(Bias{});
  const std::int64_t head_turns = plan.turns == 1 || bias.heads ? 1 : p.heads_kv;
  const std::int64_t batch_turns = plan.turns / head_turns;
  const std::int64_t heads = p.heads_kv / head_turns, batches = p.batch / batch_turns;
  const BlockOrder order(batches * heads, n, plan.lanes);
  for (std::int64_t turn = 0; turn < plan.turns; ++turn) {
    for_each_item(executor, plan.lanes, order.items(), [&](std::int64_t item, int lane) {
      const BlockRun run_of_blocks = order.at(item);
      const std::int64_t row = run_of_blocks.row, pair = run_of_blocks.pair;
      const std::int64_t batch = turn / head_turns + pair / heads, head_kv = turn % head_turns + pair % heads;
      std::int32_t* const steps = sums.steps + (batch * p.heads_kv + head_kv) * n;
      for (std::int64_t step = run_of_blocks.first; step < run_of_blocks.last; ++step) {
        wait_for_steps(steps[row], step);
        wait_for_steps(steps[(row + n - 1) % n], step);
        parts.block(work, {batch, head_kv, row, (row + n - step) % n, step > run_of_blocks.first}, lane);
        const std::atomic_ref<std::int32_t> done(steps[row]);
        done.store(static_cast<std::int32_t>(step + 1), std::memory_order_release);
        done.notify_all();
      }
    });
  }

  // Round to the outputs.
  const std::int64_t k_items = p.batch * p.heads_kv * plan.k_tiles;
  const bool reduce = plan.bias_gradient == BiasGradient::queries || plan.bias_gradient == BiasGradient::keys;
  const std::int64_t slices = reduce ? (bias.batch ? p.batch : 1) * (bias.heads ? p.heads_q : 1) : 0;
  for_each_item(executor, plan.lanes, q_items + k_items + slices, [&](std::int64_t item, int) {
    if (item < q_items) {
      return parts.write_dq(work, item / plan.q_tiles / p.heads_q, item / plan.q_tiles % p.heads_q,
                            item % plan.q_tiles);
    }
    item -= q_items;
    if (item < k_items) {
      return parts.write_dk_dv(work, item / plan.k_tiles / p.heads_kv, item / plan.k_tiles % p.heads_kv,
                               item % plan.k_tiles);
    }
    reduce_dbias(work, item - k_items);
  });
  if (p.dsink) reduce_dsink(work);
}

}  // namespace fattn::host
