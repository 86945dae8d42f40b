// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "algebra/mask_band.hpp"
#include "fattn/problem.hpp"

namespace fattn {

inline constexpr std::array kOperands = {Operand::q,    Operand::k,  Operand::v,  Operand::o,
                                         Operand::dout, Operand::dq, Operand::dk, Operand::dv};

// The shape of an operand: [batch, seqlen, heads, dim]; packed [1, total, heads, dim]; paged [pages, page_size, ...].
struct Extents {
  std::int64_t batch;
  std::int64_t seqlen;
  std::int64_t heads;
  std::int64_t dim;
  bool empty() const { return batch == 0 || seqlen == 0; }
};
Extents extents(const Problem& problem, Operand operand);

constexpr bool of_keys(Operand operand) {
  return operand == Operand::k || operand == Operand::v || operand == Operand::dk || operand == Operand::dv;
}
inline bool packed(const Problem& problem, Operand operand) {
  return (of_keys(operand) ? problem.total_k : problem.total_q).has_value();
}

// Does this pass read or write the operand?
constexpr bool takes_part(Pass pass, Operand operand) { return pass == Pass::backward || operand <= Operand::o; }
// The dtype in which the operand is stored.
inline DType dtype_of(const Problem& problem, Operand operand) {
  const bool input = operand <= Operand::v || operand == Operand::dout;
  return input ? problem.dtype : output_dtype(problem);
}

const std::optional<Strides>& given_strides(const Layouts& layouts, Operand operand);
inline std::optional<Strides>& given_strides(Layouts& layouts, Operand operand) {
  return const_cast<std::optional<Strides>&>(given_strides(static_cast<const Layouts&>(layouts), operand));
}

// Pairs that one sequence's Band keeps: the sum of visible(query) over all queries, in closed form.
std::int64_t visible_pairs(const Band& band);

}  // namespace fattn
