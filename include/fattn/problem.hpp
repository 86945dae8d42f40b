// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fattn/export.h"
#include "fattn/kv_cache.hpp"
#include "fattn/mask.hpp"
#include "fattn/score.hpp"
#include "fattn/tensor.hpp"

namespace fattn {

enum class Pass : std::uint8_t { forward, backward, decode };

enum class Operand : std::uint8_t { q, k, v, o, dout, dq, dk, dv };

// Strides of the tensors that are not contiguous in [batch, seqlen, heads, head_dim]
// (packed: [total, heads, head_dim]).
struct Layouts {
  std::optional<Strides> q = {}, k = {}, v = {}, o = {}, dout = {}, dq = {}, dk = {}, dv = {};
  friend bool operator==(const Layouts&, const Layouts&) = default;
};

// Granularity of the factors that turn e4m3 values back into real ones (docs/numerics.md, "e4m3 inputs").
enum class DescaleKind : std::uint8_t { none, tensor, head, block };
struct Descale {
  DescaleKind kind = DescaleKind::none;
  std::int64_t block_q = 0;  // rows that share a factor when kind is block
  std::int64_t block_k = 0;
  friend bool operator==(const Descale&, const Descale&) = default;
};

// One attention computation without its data: shapes, strides, kinds and extents of options, never a pointer.
// A plain value: compare it, copy it, print it, use its text as a key.
struct Problem {
  Pass pass = Pass::forward;
  DType dtype = DType::bf16;            // of q, k, v, dout
  std::optional<DType> out_dtype = {};  // of o, dq, dk, dv; unset: dtype, or bf16 when dtype is e4m3

  std::int64_t batch = 1;
  std::int64_t heads_q = 1;
  std::int64_t heads_kv = 1;    // divides heads_q: query head h reads key/value head h / (heads_q / heads_kv)
  std::int64_t seqlen_q = 1;    // packed: the longest sequence
  std::int64_t seqlen_k = 1;    // packed: the longest sequence; 0 is allowed
  std::int64_t head_dim = 64;   // of q and k
  std::int64_t head_dim_v = 0;  // of v and o; 0: head_dim

  // Set: q, o (k, v) are packed [total, heads, head_dim]; cu_seqlens_q (cu_seqlens_k) in Buffers says where sequences
  // begin.
  std::optional<std::int64_t> total_q = {};
  std::optional<std::int64_t> total_k = {};
  bool seqused_q = false;  // Buffers::seqused_q [batch] says how many rows of each sequence count
  bool seqused_k = false;

  Layouts strides = {};
  std::int64_t alignment = 16;  // bytes: q, k, v, o and their gradients begin at multiples of it

  std::optional<double> softmax_scale = {};  // unset: 1 / sqrt(head_dim)
  Mask mask = {};
  Score score = {};
  bool sinks = false;  // one logit a query head that enters the denominator only
  double dropout = 0;  // probability that a weight is dropped, in [0, 1)
  Descale descale = {};

  bool return_lse = false;        // forward writes lse; backward always reads it
  bool return_max_logit = false;  // forward writes the largest scaled score of each query head
  bool dlse = false;              // backward reads a gradient of lse
  bool dbias = false;             // backward writes dBias
  bool dsink = false;             // backward writes dSink

  bool deterministic = false;    // the same bits on every run
  bool batch_invariant = false;  // a sequence's bits do not depend on the rest of the batch

  std::optional<KvCache> kv_cache = {};

  friend bool operator==(const Problem&, const Problem&) = default;
};

// Derived facts of a valid Problem, so that no one writes the defaults twice.
FATTN_EXPORT DType output_dtype(const Problem& problem);                // of o, dq, dk, dv
FATTN_EXPORT std::int64_t head_dim_v(const Problem& problem);           // of v and o
FATTN_EXPORT double softmax_scale(const Problem& problem);              // what q.k is multiplied by
FATTN_EXPORT Strides strides(const Problem& problem, Operand operand);  // those given, else contiguous; in elements
// Visible (query, key) pairs of all heads and sequences: exact for dense problems whose mask is an interval; packed and
// used lengths count as the longest, documents and block-sparse blocks as if every pair were kept, a prefix as 0.
FATTN_EXPORT double visible_pairs(const Problem& problem);
// FLOPs of those pairs, multiply-adds count two: forward 2 * pairs * (d + dv), backward 2 * pairs * (3 d + 2 dv).
FATTN_EXPORT double flops(const Problem& problem);

// Throws Error(invalid_argument) naming the first argument that no implementation could accept, its value and the
// nearest supported value. plan() and parse_problem() call it.
FATTN_EXPORT void validate(const Problem& problem);

// The text form, "fwd b1 hq8 hk2 sq1024 sk1024 d64 fp32 causal"; its grammar is in docs/api.md.
// parse_problem(to_string(p)) == p for every valid p. Throws Error(invalid_argument) naming the word and the nearest
// one.
FATTN_EXPORT std::string to_string(const Problem& problem);
FATTN_EXPORT Problem parse_problem(std::string_view text);

FATTN_EXPORT std::string_view to_string(DType dtype);      // "bf16"
FATTN_EXPORT std::string_view to_string(Pass pass);        // "forward"
FATTN_EXPORT std::string_view to_string(Operand operand);  // "dq"

}  // namespace fattn
