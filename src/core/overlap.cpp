// SPDX-License-Identifier: Apache-2.0
#include "core/overlap.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/message.hpp"

namespace fattn {
namespace {

using std::int64_t;

// The elements of one array, where this run has them.
struct Region {
  const BufferEntry* entry;
  std::uintptr_t begin;
  std::uintptr_t last;  // where the last element begins
  std::uintptr_t end;

  bool written() const { return entry->access == Access::writes; }
  // Is the byte part of an element? Exact where larger strides step over all that lies inside smaller ones; yes is
  // always true.
  bool holds(std::uintptr_t byte) const {
    if (byte < begin) return false;
    int64_t left = static_cast<int64_t>(byte - begin) / entry->element_bytes;
    for (int i = 0; i < 4; ++i) {
      const int64_t stride = entry->stride[i];
      if (stride > 0) left -= std::min(left / stride, entry->extent[i] - 1) * stride;
    }
    return left == 0;
  }
};

Region region_of(const BufferEntry& entry, const void* data) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data), last = begin + static_cast<std::uintptr_t>(entry.last);
  return {&entry, begin, last, last + static_cast<std::uintptr_t>(entry.element_bytes)};
}

void check_pair(const Region& a, const Region& b) {
  if (a.end <= b.begin || b.end <= a.begin) return;
  const bool apart = !a.holds(b.begin) && !a.holds(b.last) && !b.holds(a.begin) && !b.holds(a.last);
  const Region &written = a.written() ? a : b, &other = a.written() ? b : a;
  require(apart, "{} = {} overlaps {} = {}, and outputs must not overlap anything; nearest: memory of its own",
          written.entry->name, reinterpret_cast<const void*>(written.begin), other.entry->name,
          reinterpret_cast<const void*>(other.begin));
}

}  // namespace

void check_overlap(std::span<const BufferEntry> table, const Buffers& buffers, const void* workspace,
                   std::size_t workspace_bytes) {
  std::array<Region, 40> regions;  // without values: clearing them takes longer than the checks
  std::size_t count = 0;
  for (const BufferEntry& entry : table) {
    if (entry.access == Access::none) continue;
    if (const void* data = pointer_of(entry, buffers); data != nullptr) regions[count++] = region_of(entry, data);
  }
  // Scratch memory is written like an output.
  const BufferEntry scratch = written_bytes("workspace", static_cast<int64_t>(workspace_bytes));
  if (workspace != nullptr && workspace_bytes != 0) regions[count++] = region_of(scratch, workspace);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (regions[i].written() || regions[j].written()) check_pair(regions[i], regions[j]);
    }
  }
}

}  // namespace fattn
