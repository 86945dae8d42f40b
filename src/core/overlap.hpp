// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "core/buffer_table.hpp"

namespace fattn {

// Throws Error(invalid_argument) when an output or the workspace shares an element with anything else. Tensors may be
// interleaved, so it looks whether the first or last element of one is an element of the other: that finds every
// overlap of contiguous tensors and every output written in place, and never refuses tensors that are apart. Allocates
// only to throw.
void check_overlap(std::span<const BufferEntry> table, const Buffers& buffers, const void* workspace,
                   std::size_t workspace_bytes);

}  // namespace fattn
