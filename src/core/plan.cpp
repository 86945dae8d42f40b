// SPDX-License-Identifier: Apache-2.0
#include "core/plan.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/message.hpp"
#include "core/tiles.hpp"
#include "fattn/choices.hpp"

namespace fattn {
namespace {

std::string_view name_of(DeviceKind kind) { return kind == DeviceKind::cuda ? "cuda" : "cpu"; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    if (const auto part = trimmed(list.substr(begin, end - begin)); !part.empty()) parts.push_back(part);
    begin = end + 1;
  }
  return parts;
}

const Row& row_named(std::span<const Row> table, std::string_view name) {
  std::vector<std::string_view> names;
  for (const Row& row : table) {
    if (row.name == name) return row;
    names.push_back(row.name);
  }
  fail(Status::invalid_argument, "kernel = {} is not a row of this library; nearest: {}", in_quotes(name),
       nearest_word(name, names));
}

// Empty: the row serves the problem. It has the right pass.
std::string refusal(const Row& row, const Problem& problem, const Device& device) {
  if (device_of(row) != device.kind) {
    return fmt::format("device = {}: this row runs on {}", name_of(device.kind), name_of(device_of(row)));
  }
  if (row.kernel == nullptr) return "not compiled into this library";
  return row.kernel->decline(problem, device);
}

// A row, and one of its tiles; none: the one that it takes by itself.
struct Forced {
  const Kernel* kernel;
  std::string_view tile;
};

void check_tile(const Kernel& kernel, std::string_view tile, const Problem& problem, const Device& device) {
  if (tile.empty()) return;
  const std::vector<std::string> tiles = tiles_of(kernel, problem, device);
  if (std::find(tiles.begin(), tiles.end(), tile) != tiles.end()) return;
  const std::vector<std::string_view> texts(tiles.begin(), tiles.end());
  if (tiles.empty())
    fail(Status::unsupported, "tile = {}: {} has one tile; nearest: none", in_quotes(tile), kernel.name);
  fail(Status::unsupported, "tile = {}: {} has {}; nearest: {}", in_quotes(tile), kernel.name, fmt::join(texts, ", "),
       nearest_word(tile, texts));
}

Forced forced_row(std::span<const Row> table, const Problem& problem, const Device& device, std::string_view forced) {
  std::string others;
  const Row* chosen = nullptr;
  std::string_view tile;
  for (const std::string_view word : split(forced)) {  // every name is checked, so that a typo never goes unseen
    const std::size_t at = std::min(word.find('@'), word.size());
    const Row& row = row_named(table, word.substr(0, at));
    if (pass_of(row) == problem.pass && device_of(row) == device.kind) {
      if (chosen != nullptr) continue;
      chosen = &row;
      tile = word.substr(std::min(at + 1, word.size()));
      if (at < word.size() && tile.empty())
        fail(Status::invalid_argument, "tile of {} is empty; nearest: none", row.name);
    } else {
      others += fmt::format("\n  {}: a {} row for {}", row.name, to_string(pass_of(row)), name_of(device_of(row)));
    }
  }
  if (chosen == nullptr) {
    fail(Status::unsupported, "kernel = {} has no {} row for {}:{}\n  problem: {}", in_quotes(forced),
         to_string(problem.pass), name_of(device.kind), others, to_string(problem));
  }
  if (const std::string reason = refusal(*chosen, problem, device); !reason.empty()) {
    fail(Status::unsupported, "kernel = {} was forced and declines: {}\n  problem: {}", chosen->name, reason,
         to_string(problem));
  }
  check_tile(*chosen->kernel, tile, problem, device);
  return {chosen->kernel, tile};
}

// Grids and workspaces are products of these numbers. What no machine has room for is refused here, before a product
// overflows in some row.
void require_countable(const Problem& p, const Device& device) {
  constexpr double kMost = 0x1p56;
  const auto real = [](auto number) { return static_cast<double>(number); };
  const double rows = real(p.seqlen_q) + real(p.seqlen_k) + 4096, columns = real(p.head_dim) + real(head_dim_v(p)) + 64;
  const double blocks = real(std::max(p.seqlen_q, p.seqlen_k)) / 64 + 1;
  const double size = real(p.heads_q) * std::max(rows * columns, blocks * blocks);
  if (real(p.batch) * size <= kMost && real(std::max(device.threads, 1)) * rows * columns <= kMost) return;
  const double nearest = std::floor(kMost / size);
  fail(Status::unsupported,
       "batch = {} with heads_q = {}, seqlen_q = {} and seqlen_k = {} is too large to be planned; {}", p.batch,
       p.heads_q, p.seqlen_q, p.seqlen_k,
       nearest >= 1 ? fmt::format("nearest: batch = {:.0f}", nearest) : std::string("nearest: fewer heads"));
}

const Kernel& first_row(std::span<const Row> table, const Problem& problem, const Device& device,
                        std::vector<Refusal>& refusals) {
  for (const Row& row : table) {
    if (pass_of(row) != problem.pass) continue;
    std::string reason = refusal(row, problem, device);
    // Oracles are asked last and for the reason only: they are never a silent fallback.
    if (reason.empty() && row.kernel->by_name_only) reason = "an oracle, chosen by name only";
    if (reason.empty()) return *row.kernel;
    refusals.push_back({std::string(row.name), std::move(reason)});
  }
  std::string list;
  for (const Refusal& each : refusals) list += fmt::format("\n  {}: {}", each.kernel, each.reason);
  fail(Status::unsupported, "no kernel row accepts this problem on {}:{}\n  problem: {}", device.name, list,
       to_string(problem));
}

}  // namespace

Plan plan_from(std::span<const Row> table, const Problem& problem, const Device& device, std::string_view forced) {
  validate(problem);
  require_usable(device);
  require_countable(problem, device);
  auto state = std::make_shared<detail::PlanState>();
  state->problem = problem;
  state->device = device;
  state->buffers = buffer_table(problem);
  const Forced choice = split(forced).empty() ? Forced{&first_row(table, problem, device, state->refusals), {}}
                                              : forced_row(table, problem, device, forced);
  state->kernel = choice.kernel;
  state->launch = choice.tile.empty() ? choice.kernel->prepare(state->problem, state->device)
                                      : prepare_with_tile(*choice.kernel, state->problem, state->device, choice.tile);
  return Plan(std::move(state));
}

Plan plan(const Problem& problem, const Device& device, std::string_view kernel) {
  if (!split(kernel).empty()) return plan_from(rows(), problem, device, kernel);
  if (const char* names = std::getenv("FATTN_KERNEL"); names != nullptr && !split(names).empty()) {
    return plan_from(rows(), problem, device, names);
  }
  const char* file = std::getenv("FATTN_CHOICES");
  if (file == nullptr || *file == '\0') return plan_from(rows(), problem, device, {});
  const std::string chosen = Choices::read(file).kernel_for(problem, device);
  try {
    return plan_from(rows(), problem, device, chosen);
  } catch (const Error& error) {
    if (chosen.empty()) throw;
    fail(error.status(), "{} chooses {}: {}", file, chosen, error.what());
  }
}

const Problem& Plan::problem() const { return state_->problem; }
const Device& Plan::device() const { return state_->device; }
std::string_view Plan::kernel() const { return state_->kernel->name; }
std::size_t Plan::workspace_bytes() const { return state_->launch.workspace_bytes; }
const LaunchShape& Plan::launch_shape() const { return state_->launch.shape; }
const std::vector<Refusal>& Plan::refusals() const { return state_->refusals; }

}  // namespace fattn
