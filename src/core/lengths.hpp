// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "fattn/problem.hpp"

namespace fattn {

// The length arrays of Buffers, readable on the host. Null where the problem has none.
struct HostLengths {
  const std::int32_t* cu_seqlens_q = nullptr;
  const std::int32_t* cu_seqlens_k = nullptr;
  const std::int32_t* seqused_q = nullptr;
  const std::int32_t* seqused_k = nullptr;
};

// Throws Error(invalid_argument) naming the first entry that is negative, decreasing or beyond its tensor. Allocates
// only to throw.
void check_lengths(const Problem& problem, const HostLengths& lengths);

}  // namespace fattn
