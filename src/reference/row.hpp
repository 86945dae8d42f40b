// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "core/kernel.hpp"

// What the rows of this room share besides the formulas.
namespace fattn::reference {

enum class Arithmetic {
  fp64,   // the oracle: everything in double
  fp32,   // the same formulas in float
  naive,  // same-precision naive (docs/numerics.md, "Rounding"): float, with P and dS rounded to the dtype
};
template <Arithmetic arithmetic>
using RealOf = std::conditional_t<arithmetic == Arithmetic::fp64, double, float>;

std::string decline(const Problem& problem, Arithmetic arithmetic);

// Parts of one block of scratch memory, 64 bytes aligned; without memory it only counts.
template <class Real>
class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<Real*>(memory)) {}
  Real* take(std::int64_t count) {
    Real* part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (count + 15) / 16 * 16;
    return part;
  }
  std::int64_t bytes() const { return used_ * static_cast<std::int64_t>(sizeof(Real)); }

 private:
  Real* memory_;
  std::int64_t used_ = 0;
};

// Slots are blocks of scratch memory that work side by side; an item is computed alike in each.
inline int slot_count(const Device& device) { return device.threads > 1 ? device.threads : 1; }

// body(item, slot) for each item: slot by slot through the executor, or one after the other without one.
template <class Body>
void for_each_item(Executor* executor, int slots, std::int64_t items, Body&& body) {
  struct Context {
    int slots;
    std::int64_t items;
    Body& body;
  } context{slots, items, body};
  const auto walk = [](void* opaque, std::int64_t slot, int) {
    const Context& c = *static_cast<Context*>(opaque);
    for (std::int64_t item = slot; item < c.items; item += c.slots) c.body(item, static_cast<int>(slot));
  };
  if (executor != nullptr) return executor->parallel_for(slots, walk, &context);
  for (int slot = 0; slot < slots; ++slot) walk(&context, slot, 0);
}

}  // namespace fattn::reference
