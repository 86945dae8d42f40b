// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/plan_parts.hpp"

#include <fmt/format.h>

#include <cfloat>
#include <cmath>
#include <optional>

#include "core/lower.hpp"

namespace fattn::gpu::sm90 {

TensorShape shape_of(const Problem& problem, Operand operand) {
  const bool keys = operand == Operand::k || operand == Operand::v || operand == Operand::dk || operand == Operand::dv;
  const bool values =
      operand == Operand::v || operand == Operand::dv || operand == Operand::o || operand == Operand::dout;
  const auto total = keys ? problem.total_k : problem.total_q;
  return {.batch = total ? 1 : problem.batch,
          .rows = total  ? *total
                  : keys ? problem.seqlen_k
                         : problem.seqlen_q,
          .heads = keys ? problem.heads_kv : problem.heads_q,
          .columns = values ? head_dim_v(problem) : problem.head_dim,
          .strides = strides(problem, operand)};
}

Band band_of(const Problem& problem) {
  return Band::of(lower_band(problem.mask), static_cast<int>(problem.seqlen_q), static_cast<int>(problem.seqlen_k));
}

VarlenLengths lengths_of(const Problem& problem, const Buffers& buffers) {
  const auto side = [](const std::int32_t* cu_seqlens, const std::int32_t* seqused, std::optional<std::int64_t> total,
                       std::int64_t seqlen) {
    return SideLengths{cu_seqlens, seqused, static_cast<int>(total.value_or(0)), static_cast<int>(seqlen)};
  };
  return {static_cast<int>(problem.batch),
          side(problem.total_q ? buffers.cu_seqlens_q : nullptr, problem.seqused_q ? buffers.seqused_q : nullptr,
               problem.total_q, problem.seqlen_q),
          side(problem.total_k ? buffers.cu_seqlens_k : nullptr, problem.seqused_k ? buffers.seqused_k : nullptr,
               problem.total_k, problem.seqlen_k)};
}

std::string decline_head_dim(const char* name, std::int64_t value, int most) {
  if (value > most) return fmt::format("{} = {}: this row has up to {}", name, value, most);
  if (value % 8 != 0)
    return fmt::format("{} = {}: this row has multiples of 8; nearest: {}", name, value, (value + 7) / 8 * 8);
  return {};
}

std::string decline_scale(const Problem& problem) {
  const double scale = std::abs(softmax_scale(problem)) * kLog2eDouble;
  if (scale <= FLT_MAX / 2) return {};
  return fmt::format("softmax_scale = {}: this row has magnitudes up to {}", softmax_scale(problem), FLT_MAX / 4);
}

std::string decline_holes(const Problem& problem) {
  const BandLimits limits = lower_band(problem.mask);
  if (limits.chunk == 0 || !limits.top_left) return {};
  const bool known = !problem.total_q && !problem.total_k && !problem.seqused_q && !problem.seqused_k;
  if (!known) return fmt::format("chunk = {} with causal_top_left: this row has them for dense batches", limits.chunk);
  if (band_of(problem).right >= 0) return {};
  return fmt::format(
      "chunk = {} with causal_top_left and seqlen_q = {}, seqlen_k = {}: this row has seqlen_q >= seqlen_k",
      limits.chunk, problem.seqlen_q, problem.seqlen_k);
}

}  // namespace fattn::gpu::sm90
