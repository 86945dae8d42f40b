// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "emulated_gpu/threads.hpp"

namespace fattn::emulated_gpu {
namespace {

// What the eight bytes of a barrier hold here.
struct Barrier {
  std::int16_t expected;
  std::int16_t pending;
  std::int32_t bytes_and_phase;  // 2 * bytes due + phase

  int bytes() const { return bytes_and_phase >> 1; }
  unsigned phase() const { return bytes_and_phase & 1; }
  void add(int bytes) { bytes_and_phase += 2 * bytes; }
};
static_assert(sizeof(Barrier) == 8);

Barrier load(std::uint32_t at) {
  if (at % 8 != 0) fail("a barrier at %u: addresses are multiples of 8", at);
  Barrier barrier;
  std::memcpy(&barrier, shared_memory(at, sizeof barrier), sizeof barrier);
  return barrier;
}

void store(std::uint32_t at, Barrier barrier) {
  if (barrier.pending == 0 && barrier.bytes() == 0) {
    barrier.pending = barrier.expected;
    barrier.bytes_and_phase ^= 1;
  }
  std::memcpy(shared_memory(at, sizeof barrier), &barrier, sizeof barrier);
}

}  // namespace

void mbarrier_init(std::uint32_t at, int arrivals) {
  const auto count = static_cast<std::int16_t>(arrivals);
  store(at, {count, count, 0});
}

void mbarrier_arrive(std::uint32_t at, std::uint32_t bytes) {
  Barrier barrier = load(at);
  if (barrier.pending <= 0) fail("the barrier at %u: one arrival more than the %d it expects", at, barrier.expected);
  barrier.add(static_cast<int>(bytes));
  barrier.pending--;
  store(at, barrier);
}

void mbarrier_complete(std::uint32_t at, std::uint32_t bytes) {
  Barrier barrier = load(at);
  barrier.add(-static_cast<int>(bytes));
  store(at, barrier);
}

void mbarrier_wait(std::uint32_t at, std::uint32_t parity) {
  wait("mbarrier", [=] { return load(at).phase() != (parity & 1); });
}

}  // namespace fattn::emulated_gpu
