// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "fattn/problem.hpp"

namespace fattn::python {

// What a call asks for beside its arrays.
struct Options {
  static constexpr std::size_t kCount = 11;
  bool causal = false;
  bool causal_top_left = false;
  std::int64_t window_left = -1;
  std::int64_t window_right = -1;
  std::int64_t chunk = 0;
  std::optional<double> softmax_scale;
  double softcap = 0;
  double dropout = 0;
  bool deterministic = false;
  bool batch_invariant = false;
  std::string kernel;

  void apply(Problem& p) const {
    p.mask.causal = causal;
    p.mask.causal_top_left = causal_top_left;
    p.mask.window_left = window_left;
    p.mask.window_right = window_right;
    p.mask.chunk = chunk;
    p.softmax_scale = softmax_scale;
    p.score.softcap = softcap;
    p.dropout = dropout;
    p.deterministic = deterministic;
    p.batch_invariant = batch_invariant;
  }
};

// From Python's values in the order of the fields. Values of a wrong type are refused by name.
Options read_options(const std::array<nanobind::handle, Options::kCount>& values);
std::int64_t read_integer(const char* name, nanobind::handle value);

// Which optional arrays and outputs take part: bits, so that a call passes one number.
enum Flag : unsigned {
  kSequsedQ = 1,
  kSequsedK = 2,
  kSinks = 4,
  kDocuments = 8,
  kPrefix = 16,
  kLse = 32,
  kMaxLogit = 64,
  kDlse = 128,
  kDbias = 256,
  kDsink = 512,
  kAlibiHead = 1024,
  kAlibiBatch = 2048,
};

inline void apply_flags(Problem& p, unsigned flags) {
  p.seqused_q = flags & kSequsedQ;
  p.seqused_k = flags & kSequsedK;
  p.sinks = flags & kSinks;
  p.mask.documents = flags & kDocuments;
  p.mask.prefix = flags & kPrefix;
  p.return_lse = flags & kLse;
  p.return_max_logit = flags & kMaxLogit;
  p.dlse = flags & kDlse;
  p.dbias = flags & kDbias;
  p.dsink = flags & kDsink;
  if (flags & kAlibiHead) p.score.alibi = Alibi::per_head;
  if (flags & kAlibiBatch) p.score.alibi = Alibi::per_batch_and_head;
}

}  // namespace fattn::python
