// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fattn/attention.hpp"

namespace fattn {

enum class Access { none, reads, writes };

// One pointer of Buffers and what a problem says about it. Made once for a plan: run() has little time.
struct BufferEntry {
  const char* name;
  std::size_t at;             // of the pointer, in Buffers
  bool needed = false;        // the problem has it and it is not empty
  bool out_of_place = false;  // given, this pass would take part in it, but the problem does not speak of it
  bool may_be_null = false;
  std::int64_t alignment = 1;  // in bytes

  // Its elements, where it must not overlap outputs, or be one that overlaps anything.
  Access access = Access::none;
  std::int64_t element_bytes = 1;
  std::array<std::int64_t, 4> extent{1, 1, 1, 1};
  std::array<std::int64_t, 4> stride{1, 1, 1, 1};  // in elements, the largest first
  std::int64_t last = 0;                           // byte at which the last element begins
};

std::vector<BufferEntry> buffer_table(const Problem& problem);

inline const void* pointer_of(const BufferEntry& entry, const Buffers& buffers) {
  const void* pointer;
  std::memcpy(&pointer, reinterpret_cast<const char*>(&buffers) + entry.at, sizeof(pointer));
  return pointer;
}

// A contiguous array of so many bytes, for check_overlap().
BufferEntry written_bytes(const char* name, std::int64_t bytes);

}  // namespace fattn
