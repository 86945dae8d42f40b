// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "fattn/tensor.hpp"

namespace fattn {

// An additive bias [batch, heads_q, seqlen_q, seqlen_k]; a dimension that is false has extent 1 and is broadcast.
// Contiguous in that order over the extents that remain. dBias has the same shape, in fp32.
struct Bias {
  bool batch = false;
  bool heads = false;
  bool queries = false;
  bool keys = false;
  DType dtype = DType::fp32;
  friend bool operator==(const Bias&, const Bias&) = default;
};

enum class Alibi : std::uint8_t { none, per_head, per_batch_and_head };

// What happens to a raw score q.k before the mask, in this order (docs/numerics.md, "Scores"):
//   s = softmax_scale * (q.k)
//   s = softcap * tanh(s / softcap)
//   s += bias
//   s -= slope * |query + seqlen_k - seqlen_q - key|
struct Score {
  double softcap = 0;  // 0: none
  std::optional<Bias> bias = {};
  Alibi alibi = Alibi::none;  // slopes [heads_q] or [batch, heads_q], fp32
  friend bool operator==(const Score&, const Score&) = default;
};

}  // namespace fattn
