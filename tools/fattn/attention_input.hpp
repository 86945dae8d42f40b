// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fattn/problem.hpp"
#include "io/array.hpp"
#include "verify/case_data.hpp"

namespace fattn::tool {

// Q, K, V and what else a file brings: dout, dlse, bias, alibi_slopes, sinks.
struct AttentionInput {
  std::map<std::string, io::Array> tensors;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> ignored;  // tensors of the file with other names
  bool npy = false;
};

// One .safetensors file with tensors q, k, v, or three .npy files in this order. Every tensor is checked: rank,
// matching shapes, floating-point type, finite values. `dtype` set: q, k, v and dout are rounded to it.
AttentionInput read_input(const std::vector<std::string>& files, std::optional<DType> dtype);

// The problem of the shapes, with more words of the text form ("causal window=1024,0 softcap=30"). The backward writes
// every gradient that the words and the tensors make possible.
Problem problem_of(const AttentionInput& input, Pass pass, const std::string& words);

// Data of that problem with the file's tensors in it. What the file lacks: dout and dlse are drawn from the seed,
// anything else that the problem needs is an error.
verify::CaseData case_of(const AttentionInput& input, const Problem& problem, const Device& device, std::uint64_t seed);

io::Array array_of(const verify::Tensor& tensor, std::vector<std::int64_t> shape);

}  // namespace fattn::tool
