// SPDX-License-Identifier: Apache-2.0
#include "cpu/forward.hpp"

#include <limits>

#include "algebra/softmax_state.hpp"
#include "cpu/threads.hpp"

namespace fattn::host {
namespace {

Tile tile_of(const Geometry& g, const Device& device, const Blocking& block) {
  if (!block.pairs) return forward_tile(block, g.d, g.dv, l2_bytes(device));
  Tile tile = forward_pairs_tile(g.d, g.dv, l2_bytes(device), g.problem.seqlen_q);
  // Marks and bias have room for one tile.
  if (g.hides || g.drops || g.problem.score.bias) tile.group = 1;
  return tile;
}

// Whether the plan may go another way because it has few queries. Where sequences are packed, the longest of the batch
// decides that, which batch_invariant rules out.
bool may_be_few(const Problem& p) { return !(p.batch_invariant && p.total_q); }

// How many heads that share a key head are served at once when there are few queries; 0: not at all. Options that
// differ from head to head, or from row to row in ways of their own, go the way of many queries.
int fold_of(const Geometry& g) {
  const Problem& p = g.problem;
  if (p.seqlen_q < 1 || p.seqlen_q > kFewestQueries || !may_be_few(p) || p.return_max_logit) return 0;
  if (g.hides || g.drops || p.score.bias || p.score.alibi != Alibi::none) return 0;
  std::int64_t fold = g.group;
  while (g.group % fold != 0 || fold * p.seqlen_q > kMostFewRows) --fold;
  return static_cast<int>(fold);
}

}  // namespace

ForwardPlan::ForwardPlan(const Problem& problem, const Device& device, const Blocking& block,
                         std::optional<Tile> chosen)
    : geometry(problem),
      q(problem, Operand::q),
      k(problem, Operand::k),
      v(problem, Operand::v),
      o(problem, Operand::o),
      tile(chosen.value_or(tile_of(geometry, device, block))),
      blocking(block),
      // One more than none, so that there is an item to write rows past the lengths.
      q_tiles(std::max<std::int64_t>(1, ceil_div64(problem.seqlen_q, tile.q))),
      splits(problem.seqlen_q > kFewQueries || !may_be_few(problem)
                 ? 1
                 : std::max<std::int64_t>(1, ceil_div64(problem.seqlen_k, kSplitKeys))),
      fold(fold_of(geometry)),
      items(problem.batch * problem.heads_q / std::max(fold, 1) * q_tiles * splits),
      lanes(static_cast<int>(std::clamp<std::int64_t>(items, 1, std::max(1, device.threads)))) {
  Carver carver(nullptr);
  ForwardScratch(carver, *this);
  lane_bytes = (carver.used() + 255) / 256 * 256;
}

ForwardScratch::ForwardScratch(Carver& carver, const ForwardPlan& plan) {
  const Tile tile = plan.tile;
  const std::int64_t panel = plan.blocking.panel;
  const std::int64_t d = ceil_div64(plan.geometry.d, panel) * panel, dv = ceil_div64(plan.geometry.dv, panel) * panel;
  const bool pairs = plan.blocking.pairs;
  q = carver.operand(tile.q * d, pairs);
  k = carver.operand(tile.group * tile.k * d, pairs);
  v = carver.operand(tile.group * tile.k * dv, pairs);
  s = carver.take<float>(tile.k * (pairs ? 2 * panel : tile.q));
  o = carver.take<float>(tile.q * dv);
  copy = pairs ? carver.operand(tile.k * std::max(d, dv), pairs) : nullptr;
  rows = pairs ? carver.take<float>(panel * dv) : nullptr;
  bias = plan.geometry.problem.score.bias ? carver.take<float>(tile.q * tile.k) : nullptr;
  max = carver.take<float>(tile.q);
  sum = carver.take<float>(tile.q);
  factor = carver.take<float>(tile.q);
  max_logit = carver.take<float>(tile.q);
  first = carver.take<int>(tile.q);
  last = carver.take<int>(tile.q);
  marks = plan.geometry.hides || plan.geometry.drops ? carver.take<int>(tile.q * tile.k) : nullptr;
  seen = carver.take<bool>(tile.k);
  begun = pairs ? carver.take<bool>(tile.q / panel) : nullptr;
}

Launch prepare_forward(const Problem& problem, const Device& device, const Blocking& blocking,
                       std::optional<Tile> tile) {
  const auto plan = std::make_shared<const ForwardPlan>(problem, device, blocking, tile);
  if (device.index >= 0) shared_pool(plan->lanes);
  Launch launch;
  launch.shape.tile = std::to_string(plan->tile.q) + "x" + std::to_string(plan->tile.k) +
                      (plan->tile.group > 1 ? std::string("x").append(std::to_string(plan->tile.group)) : "") + " " +
                      blocking.text + ", L2 " + std::to_string(l2_bytes(device) >> 10) + " KiB";
  if (plan->fold > 0) {
    launch.shape.tile = std::to_string(plan->tile.q) + "x" + std::to_string(plan->tile.k) + " keys as they lie, " +
                        std::to_string(plan->fold) + " heads side by side";
  }
  launch.shape.grid = plan->items;
  launch.shape.threads = plan->lanes;
  if (plan->splits > 1) launch.shape.tile += ", keys in parts of " + std::to_string(kSplitKeys);
  const std::int64_t parts = plan->splits > 1 ? plan->items * plan->part_rows() * plan->part_floats() : 0;
  const std::int64_t floats = (problem.return_max_logit ? plan->items : 0) + parts;
  launch.workspace_bytes =
      static_cast<std::size_t>(plan->lanes) * plan->lane_bytes + static_cast<std::size_t>(floats) * sizeof(float);
  launch.prepared = plan;
  return launch;
}

void run_forward(const Run& run, const ForwardParts& parts) {
  const auto& plan = *static_cast<const ForwardPlan*>(run.launch.prepared.get());
  char* const memory = static_cast<char*>(run.workspace.data);
  const std::size_t scratch_bytes = static_cast<std::size_t>(plan.lanes) * plan.lane_bytes;
  float* const max_logits = reinterpret_cast<float*>(memory + scratch_bytes);
  const ForwardWork work{plan, run.buffers, memory, max_logits,
                         max_logits + (run.problem.return_max_logit ? plan.items : 0)};
  Executor* const executor = run.stream.executor != nullptr ? run.stream.executor : shared_pool();
  for_each_item(executor, plan.lanes, plan.items, [&](std::int64_t index, int lane) { parts.item(work, index, lane); });
  if (plan.splits > 1) {
    for_each_item(executor, plan.lanes, plan.items / plan.splits,
                  [&](std::int64_t index, int) { parts.merge(work, index); });
  }
  if (!run.problem.return_max_logit) return;
  for (std::int64_t head = 0; head < run.problem.heads_q; ++head) {
    float top = -std::numeric_limits<float>::infinity();
    for (std::int64_t batch = 0; batch < run.problem.batch; ++batch) {
      const float* const tops = work.max_logits + (batch * run.problem.heads_q + head) * plan.q_tiles * plan.splits;
      for (std::int64_t tile = 0; tile < plan.q_tiles * plan.splits; ++tile) top = larger(top, tops[tile]);
    }
    run.buffers.max_logit[head] = top;
  }
}

}  // namespace fattn::host
