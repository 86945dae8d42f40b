// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <random>
#include <vector>

// The copy engine. What is asked of it happens at some time between the request and the wait for it: loads when the
// block has nothing else to do or chance will have it, stores in two steps, reading shared memory and writing global.
namespace fattn::emulated_gpu {

// A tensor map: what lies in the 128 bytes of a CUtensorMap.
struct TensorMap {
  std::uint64_t mark;
  unsigned char* data;
  std::uint64_t strides[4];  // bytes, from the second dimension
  std::uint32_t extents[5];
  std::uint32_t box[5];
  std::uint32_t element_bytes;

  static constexpr std::uint64_t kMark = 0x70616d20726f7365;
  std::uint32_t box_bytes() const;
};
static_assert(sizeof(TensorMap) <= 128);

struct Transfer {
  enum class Kind { load_box, load_bytes, store_box, store_bytes, add_floats } kind;
  TensorMap map{};
  int at[5]{};
  std::uint32_t shared = 0;
  unsigned char* global = nullptr;
  std::uint32_t bytes = 0;
  std::uint32_t barrier = 0;           // loads
  bool read = false, written = false;  // stores
  std::vector<unsigned char> data{};   // what was read

  void load() const;
  void read_shared();
  void write_global();
};

// The stores of one thread, in groups.
struct StoreGroups {
  std::deque<std::vector<Transfer>> committed;
  std::vector<Transfer> open;

  bool idle() const;
  void read_until(std::size_t later);
  void write_until(std::size_t later);
  void some_step(std::mt19937& random);  // one of those still to do
  bool unread() const;
};

void start_load(Transfer transfer);
void add_store(Transfer transfer);
void commit_stores();
void wait_stores_read(int groups);
void wait_stores_written(int groups);

}  // namespace fattn::emulated_gpu
