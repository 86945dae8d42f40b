// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fattn/problem.hpp"
#include "verify/case_data.hpp"
#include "verify/threads.hpp"

namespace fattn::tool {

// What flash attention is compared with: S = scale * Q K^T for all heads written to memory, softmax over its rows, then
// S V. fp32, by blocks of rows on all threads. Dense problems with a Band mask and no score modifiers, forward only.
class StandardAttention {
 public:
  static bool serves(const Problem& problem);
  static double bytes(const Problem& problem);  // of everything it holds

  StandardAttention(verify::CaseData& inputs, int threads);
  void run();
  const std::vector<float>& o() const { return o_; }  // [batch, seqlen_q, heads_q, head_dim_v]

 private:
  void scores(std::int64_t head, std::int64_t row);
  void softmax(std::int64_t head, std::int64_t row);
  void outputs(std::int64_t head, std::int64_t row);
  template <class Step>
  void for_each_block(Step step);

  Problem problem_;
  verify::Threads threads_;
  std::vector<float> q_;        // [batch, heads_q, seqlen_q, head_dim]
  std::vector<float> k_;        // [batch, heads_kv, head_dim, seqlen_k]
  std::vector<float> v_;        // [batch, heads_kv, seqlen_k, head_dim_v]
  std::vector<float> weights_;  // [batch, heads_q, seqlen_q, seqlen_k]
  std::vector<float> o_;
};

}  // namespace fattn::tool
