// SPDX-License-Identifier: Apache-2.0
#include "emulated_gpu/copies.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "emulated_gpu/threads.hpp"

namespace fattn::emulated_gpu {
namespace {

constexpr std::uint32_t kRow = 128;  // the swizzle permutes the 16-byte chunks of 128 bytes, by the address of the row

std::uint32_t swizzled(std::uint32_t address) { return address ^ (address >> 3 & 0x70); }

// Calls visit(element of the box counted from 0, its place in global memory or null outside the tensor).
template <class Visit>
void each_element(const TensorMap& map, const int (&at)[5], Visit visit) {
  std::uint32_t index[5] = {}, element = 0;
  for (;;) {
    unsigned char* place = map.data;
    for (int i = 0; i < 5; i++) {
      const std::int64_t coordinate = std::int64_t{at[i]} + index[i];
      if (coordinate < 0 || coordinate >= map.extents[i]) {
        place = nullptr;
        break;
      }
      place += static_cast<std::uint64_t>(coordinate) * (i == 0 ? map.element_bytes : map.strides[i - 1]);
    }
    visit(element++, place);
    int i = 0;
    while (i < 5 && ++index[i] == map.box[i]) index[i++] = 0;
    if (i == 5) return;
  }
}

void check(const Transfer& transfer) {
  if (transfer.kind == Transfer::Kind::load_box || transfer.kind == Transfer::Kind::store_box) {
    if (transfer.map.mark != TensorMap::kMark) fail("a tensor map that nobody encoded");
    if (transfer.shared % 128 != 0)
      fail("a box at %u of shared memory: addresses are multiples of 128", transfer.shared);
  } else {
    const auto global = reinterpret_cast<std::uintptr_t>(transfer.global);
    if (transfer.shared % 16 != 0 || global % 16 != 0 || transfer.bytes % 16 != 0 || transfer.bytes == 0)
      fail("a copy of %u bytes between %u and %p: all are multiples of 16", transfer.bytes, transfer.shared,
           static_cast<void*>(transfer.global));
  }
  shared_memory(transfer.shared, transfer.bytes);
}

}  // namespace

std::uint32_t TensorMap::box_bytes() const {
  std::uint32_t bytes = element_bytes;
  for (const std::uint32_t width : box) bytes *= width;
  return bytes;
}

void Transfer::load() const {
  written_async(shared, bytes);
  if (kind == Kind::load_bytes) {
    std::memcpy(shared_memory(shared, bytes), global, bytes);
  } else {
    bool any = false;
    each_element(map, at, [&](std::uint32_t element, const unsigned char* place) {
      any |= place != nullptr;
      unsigned char* const to = shared_memory(swizzled(shared + element * map.element_bytes), map.element_bytes);
      if (place == nullptr) {
        std::memset(to, 0, map.element_bytes);
      } else {
        std::memcpy(to, place, map.element_bytes);
      }
    });
    // An H200 ended such loads in an illegal address.
    if (!any && !in_device_memory(map.data))
      fail("a box that lies outside its tensor, of a tensor that begins outside all memory");
  }
  mbarrier_complete(barrier, bytes);
}

void Transfer::read_shared() {
  const unsigned char* const from = shared_memory(shared, bytes);
  data.assign(from, from + bytes);
  read = true;
}

void Transfer::write_global() {
  switch (kind) {
    case Kind::store_bytes: std::memcpy(global, data.data(), bytes); break;
    case Kind::add_floats:
      for (std::uint32_t i = 0; i < bytes / sizeof(float); i++) {
        float more;
        std::memcpy(&more, data.data() + i * sizeof more, sizeof more);
        std::atomic_ref<float>(reinterpret_cast<float*>(global)[i]).fetch_add(more);
      }
      break;
    default:
      each_element(map, at, [&](std::uint32_t element, unsigned char* place) {
        if (place == nullptr) return;
        const std::uint32_t from = swizzled(shared + element * map.element_bytes) - shared;
        std::memcpy(place, data.data() + from, map.element_bytes);
      });
  }
  written = true;
}

bool StoreGroups::idle() const { return committed.empty(); }

bool StoreGroups::unread() const {
  const auto any_unread = [](const std::vector<Transfer>& group) {
    return std::any_of(group.begin(), group.end(), [](const Transfer& store) { return !store.read; });
  };
  return any_unread(open) || std::any_of(committed.begin(), committed.end(), any_unread);
}

void StoreGroups::read_until(std::size_t later) {
  for (std::size_t i = 0; i + later < committed.size(); i++)
    for (Transfer& store : committed[i])
      if (!store.read) store.read_shared();
}

void StoreGroups::write_until(std::size_t later) {
  read_until(later);
  for (; committed.size() > later; committed.pop_front())
    for (Transfer& store : committed.front())
      if (!store.written) store.write_global();
}

void StoreGroups::some_step(std::mt19937& random) {
  std::vector<Transfer>& group = committed[random() % committed.size()];
  for (Transfer& store : group) {
    if (store.written) continue;
    if (store.read) {
      store.write_global();
    } else {
      store.read_shared();
    }
    break;
  }
  const auto written = [](const Transfer& store) { return store.written; };
  while (!committed.empty() && std::all_of(committed.front().begin(), committed.front().end(), written))
    committed.pop_front();
}

void start_load(Transfer transfer) {
  if (transfer.kind == Transfer::Kind::load_box) transfer.bytes = transfer.map.box_bytes();
  check(transfer);
  block().loads.push_back(std::move(transfer));
}

void add_store(Transfer transfer) {
  if (transfer.kind == Transfer::Kind::store_box) transfer.bytes = transfer.map.box_bytes();
  check(transfer);
  if (!fenced(transfer.shared, transfer.bytes)) fail("a store of shared memory that was written and not fenced");
  thread().stores.open.push_back(std::move(transfer));
}

void commit_stores() {
  StoreGroups& stores = thread().stores;
  stores.committed.push_back(std::move(stores.open));
  stores.open.clear();
}

void wait_stores_read(int groups) { thread().stores.read_until(static_cast<std::size_t>(groups)); }

void wait_stores_written(int groups) {
  while (!chance(8)) spin();  // other blocks must not mind how late it is
  thread().stores.write_until(static_cast<std::size_t>(groups));
}

}  // namespace fattn::emulated_gpu
