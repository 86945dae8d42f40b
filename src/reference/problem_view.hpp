// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "algebra/mask_band.hpp"
#include "core/lower.hpp"
#include "fattn/attention.hpp"
#include "reference/element.hpp"

namespace fattn::reference {

// One side (queries or keys) of one sequence: its rows [begin, begin + length) take part, those up to `end` are padding
// that belongs to it. Rows count from the batch's first row, or from the first packed row.
struct Rows {
  std::int64_t begin;
  int length;
  std::int64_t end;
};

// A Problem with its data, as the formulas want to read it.
struct ProblemView {
  const Problem& problem;
  const Buffers& buffers;
  BandLimits limits = lower_band(problem.mask);
  PairMasks pair_masks = lower_pairs(problem, buffers);

  Rows queries(std::int64_t batch) const {
    return rows(batch, problem.seqlen_q, problem.total_q, buffers.cu_seqlens_q,
                problem.seqused_q ? buffers.seqused_q : nullptr);
  }
  Rows keys(std::int64_t batch) const {
    return rows(batch, problem.seqlen_k, problem.total_k, buffers.cu_seqlens_k,
                problem.seqused_k ? buffers.seqused_k : nullptr);
  }

  // Offset in elements of a tensor's row. A packed tensor has no batch dimension.
  std::int64_t offset(Operand operand, std::int64_t batch, std::int64_t row, std::int64_t head) const {
    const Strides s = strides(problem, operand);
    const bool of_keys =
        operand == Operand::k || operand == Operand::v || operand == Operand::dk || operand == Operand::dv;
    const bool packed = of_keys ? problem.total_k.has_value() : problem.total_q.has_value();
    return (packed ? 0 : batch * s.batch) + row * s.seqlen + head * s.head;
  }
  std::int64_t lse_offset(std::int64_t batch, std::int64_t row, std::int64_t head) const {
    return problem.total_q ? head * *problem.total_q + row : (batch * problem.heads_q + head) * problem.seqlen_q + row;
  }
  // Offset of a query's bias for key 0 and the step to the next key. Query and key count within the sequence.
  std::int64_t bias_offset(std::int64_t batch, std::int64_t head, std::int64_t query) const {
    const Bias& bias = *problem.score.bias;
    const std::int64_t heads = bias.heads ? problem.heads_q : 1, rows = bias.queries ? problem.seqlen_q : 1;
    const std::int64_t slice = (bias.batch ? batch * heads : 0) + (bias.heads ? head : 0);
    return (slice * rows + (bias.queries ? query : 0)) * (bias.keys ? problem.seqlen_k : 1);
  }
  std::int64_t bias_elements() const {
    if (!problem.score.bias) return 0;
    const Bias& bias = *problem.score.bias;
    return (bias.batch ? problem.batch : 1) * (bias.heads ? problem.heads_q : 1) *
           (bias.queries ? problem.seqlen_q : 1) * (bias.keys ? problem.seqlen_k : 1);
  }

 private:
  // Lengths are clamped to the tensors, so that wrong ones read and write nothing outside.
  Rows rows(std::int64_t batch, std::int64_t longest, std::optional<std::int64_t> total, const std::int32_t* cu_seqlens,
            const std::int32_t* seqused) const {
    Rows rows{0, static_cast<int>(longest), longest};
    if (total) {
      const std::int64_t begin = std::clamp<std::int64_t>(cu_seqlens[batch], 0, *total);
      const std::int64_t end = std::clamp<std::int64_t>(cu_seqlens[batch + 1], begin, *total);
      // Rows past the last sequence are padding of the last one.
      rows = {begin, static_cast<int>(std::min(end - begin, longest)), batch + 1 == problem.batch ? *total : end};
    }
    if (seqused != nullptr) rows.length = std::clamp(seqused[batch], 0, rows.length);
    return rows;
  }
};

// One sequence of the batch: its rows and its mask.
struct Sequence {
  const ProblemView& view;
  std::int64_t batch;
  Rows queries = view.queries(batch), keys = view.keys(batch);
  Band band =
      Band::of(view.limits, queries.length, keys.length, view.problem.mask.prefix ? view.buffers.prefix[batch] : 0);

  PairMask pairs(std::int64_t head) const {
    const Problem& p = view.problem;
    return view.pair_masks.of(batch, head, (p.total_q ? 0 : batch * p.seqlen_q) + queries.begin,
                              (p.total_k ? 0 : batch * p.seqlen_k) + keys.begin);
  }
  // Row `row` of q, k, v or dout for one head as real numbers, within the sequence.
  template <class Real>
  void load_row(Operand operand, const void* data, std::int64_t head, int row, std::int64_t count, Real* out) const {
    const Problem& p = view.problem;
    const bool of_keys = operand == Operand::k || operand == Operand::v;
    const std::int64_t from = view.offset(operand, batch, (of_keys ? keys : queries).begin + row, head);
    // dout is the one tensor whose elements may be 0 apart.
    const std::int64_t step = operand == Operand::dout ? strides(p, operand).dim : 1;
    load(operand == Operand::o ? output_dtype(p) : p.dtype, data, from, step, count, out);
    if (p.descale.kind == DescaleKind::none || operand == Operand::dout || operand == Operand::o) return;
    const auto factor = static_cast<Real>(lower_descale(p, view.buffers, operand).factor(batch, head, row));
    for (std::int64_t i = 0; i < count; ++i) out[i] *= factor;
  }
};

}  // namespace fattn::reference
