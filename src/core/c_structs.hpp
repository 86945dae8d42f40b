// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "core/message.hpp"
#include "fattn/attention.hpp"
#include "fattn/fattn.h"

// The structs of the C interface, there and back.
namespace fattn {

template <class Pointer>
void require_pointer(const char* name, Pointer pointer) {
  require(pointer != nullptr, "{} = null; nearest: a valid pointer", name);
}

// A struct_size beyond this is an uninitialised one.
inline constexpr std::size_t kLargestStruct = 65536;

template <class Struct>
void require_size(std::size_t size) {
  require(size >= sizeof(std::size_t) && size <= kLargestStruct && size % alignof(Struct) == 0,
          "struct_size = {} is no size of this struct; nearest: {}", size, sizeof(Struct));
}

// A caller's struct, completed by `value`, which holds the defaults.
template <class Struct>
Struct read_struct(const char* name, const Struct* given, Struct value) {
  require_pointer(name, given);
  const std::size_t size = given->struct_size;
  require_size<Struct>(size);
  std::memcpy(&value, given, std::min(size, sizeof(Struct)));
  const auto* const bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof(Struct); i < size; ++i) {
    require(bytes[i] == 0, "{}.struct_size = {} with fields set that this version does not know; nearest: {}", name,
            size, sizeof(Struct));
  }
  value.struct_size = sizeof(Struct);
  return value;
}

// Writes a struct of `size` bytes. `defaults` is what a reader will assume for fields that do not fit.
template <class Struct>
void write_struct(const char* name, Struct value, const Struct& defaults, Struct* to, std::size_t size) {
  require_pointer(name, to);
  require_size<Struct>(size);
  const std::size_t shared = std::min(size, sizeof(Struct));
  value.struct_size = defaults.struct_size;
  require(std::memcmp(reinterpret_cast<const char*>(&value) + shared, reinterpret_cast<const char*>(&defaults) + shared,
                      sizeof(Struct) - shared) == 0,
          "{}.struct_size = {} has no room for the options in use; nearest: {}", name, size, sizeof(Struct));
  value.struct_size = size;
  std::memset(static_cast<void*>(to), 0, size);
  std::memcpy(static_cast<void*>(to), &value, shared);
}

fattn_problem to_c(const Problem& problem);
fattn_device to_c(const Device& device);
const fattn_problem& default_problem();

Problem from_c(const fattn_problem* given);  // not yet validated
Device from_c(const fattn_device* given);
Buffers from_c(const fattn_buffers* given);

}  // namespace fattn
