// SPDX-License-Identifier: Apache-2.0
#include "emulated_gpu/block.hpp"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "emulated_gpu/threads.hpp"

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace fattn::emulated_gpu {
namespace {

thread_local Block* this_block = nullptr;
thread_local Thread* this_thread = nullptr;
thread_local jmp_buf scheduler;

int setting(const char* name, int otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

// Runs on the coroutine's own stack, and never returns.
void run_thread() {
  (*block().kernel)();
  if (thread().stores.unread()) fail("a thread ended before its stores had read shared memory");
  thread().done = true;
  _longjmp(scheduler, 1);
}

void suspend() {
  Thread& self = thread();
  if (_setjmp(self.resume) == 0) _longjmp(scheduler, 1);
}

}  // namespace

Block& block() { return *this_block; }
Thread& thread() { return *this_thread; }
const Position& here() { return this_thread->position; }
int multiprocessors() { return setting("FATTN_EMULATED_MULTIPROCESSORS", 4); }
bool chance(int one_in) { return block().random() % static_cast<unsigned>(one_in) == 0; }

void fail(const char* format, ...) {
  std::fprintf(stderr, "emulated GPU: ");
  va_list values;
  va_start(values, format);
  std::vfprintf(stderr, format, values);
  va_end(values);
  if (this_thread != nullptr)
    std::fprintf(stderr, " (block %u, thread %u)", this_thread->position.block.x, this_thread->position.thread.x);
  std::fprintf(stderr, "\n");
  std::abort();
}

Stack::Stack() {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory_ == MAP_FAILED || mprotect(memory_, page, PROT_NONE) != 0) fail("no memory for a stack");
}
Stack::~Stack() { munmap(memory_, kBytes); }

namespace {
struct Stacks {
  std::mutex mutex;
  std::vector<std::unique_ptr<Stack>> free;
} all_stacks;
}  // namespace

std::unique_ptr<Stack> Stack::take() {
  const std::scoped_lock lock(all_stacks.mutex);
  if (all_stacks.free.empty()) return std::make_unique<Stack>();
  std::unique_ptr<Stack> stack = std::move(all_stacks.free.back());
  all_stacks.free.pop_back();
  return stack;
}
void Stack::give_back(std::unique_ptr<Stack> stack) {
  const std::scoped_lock lock(all_stacks.mutex);
  all_stacks.free.push_back(std::move(stack));
}

void wait(const char* what, const std::function<bool()>& met) {
  if (met() && !chance(8)) return;  // now and then it is somebody else's turn all the same
  Thread& self = thread();
  self.what = what, self.until = &met;
  suspend();
}

void spin() {
  thread().spins = true;
  suspend();
}

std::uint32_t shared_address(const void* pointer) {
  const auto offset = static_cast<const unsigned char*>(pointer) - block().shared;
  if (offset < 0 || offset > static_cast<std::ptrdiff_t>(block().shared_bytes))
    fail("an address that is not in shared memory");
  return static_cast<std::uint32_t>(offset);
}

unsigned char* shared_memory(std::uint32_t address, std::size_t bytes) {
  if (address + bytes > block().shared_bytes)
    fail("shared memory at %u, %zu bytes: the block has %zu", address, bytes, block().shared_bytes);
  return block().shared + address;
}

unsigned char* dynamic_shared() { return block().shared; }

void wrote_shared(std::uint32_t address, std::size_t bytes) {
  for (std::size_t at = address / 16; at * 16 < address + bytes; at++)
    block().writes.at(at) = {thread().index, thread().fences};
}
void fence_async() { thread().fences++; }
bool fenced(std::uint32_t address, std::size_t bytes) {
  for (std::size_t at = address / 16; at * 16 < address + bytes; at++) {
    const Block::Write& write = block().writes.at(at);
    if (write.thread >= 0 && block().threads[static_cast<std::size_t>(write.thread)]->fences == write.fences)
      return false;
  }
  return true;
}
void written_async(std::uint32_t address, std::size_t bytes) {
  for (std::size_t at = address / 16; at * 16 < address + bytes; at++) block().writes.at(at) = {};
}

const Lanes& meet_warp(const char* what, const Words& words) {
  Thread& self = thread();
  Warp& warp = block().warps[static_cast<std::size_t>(self.index / 32)];
  const unsigned generation = warp.generation;
  if (warp.arrived == 0) warp.what = what;
  if (std::strcmp(warp.what, what) != 0) fail("a warp is at %s and at %s at once", warp.what, what);
  Lanes& lanes = warp.lanes[generation % 2];
  lanes[static_cast<std::size_t>(self.index % 32)] = words;
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    warp.generation++;
  }
  wait(what, [&] { return warp.generation != generation; });
  return lanes;  // nobody writes it again before everybody has come to the next meeting, and so has read it
}

void sync_block() { named_barrier(0, static_cast<int>(here().block_size.x * here().block_size.y), true); }

void named_barrier(int id, int threads, bool wait_there) {
  NamedBarrier& barrier = block().barriers.at(static_cast<std::size_t>(id));
  if (barrier.arrived > 0 && barrier.expected != threads)
    fail("named barrier %d: %d threads, others said %d", id, threads, barrier.expected);
  const unsigned generation = barrier.generation;
  barrier.expected = threads;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    barrier.generation++;
  }
  if (wait_there) wait("named barrier", [&] { return barrier.generation != generation; });
}

void Block::resume(Thread& next) {
  this_thread = &next;
  threadIdx = next.position.thread, blockIdx = next.position.block;
  blockDim = next.position.block_size, gridDim = next.position.grid_size;
  next.until = nullptr, next.what = nullptr, next.spins = false;
  if (_setjmp(scheduler) == 0) {
    if (next.started) _longjmp(next.resume, 1);
    next.started = true;
    setcontext(&next.entry);
  }
  this_thread = nullptr;
}

bool Block::copy_something() {
  std::vector<Thread*> storing;
  for (const auto& each : threads)
    if (!each->stores.idle()) storing.push_back(each.get());
  const std::size_t choices = loads.size() + storing.size();
  if (choices == 0) return false;
  const std::size_t choice = random() % choices;
  if (choice < loads.size()) {
    const Transfer load = loads[choice];
    loads[choice] = loads.back();
    loads.pop_back();
    load.load();
  } else {
    storing[choice - loads.size()]->stores.some_step(random);
  }
  return true;
}

bool Block::resume_all(int but_warp, bool& only_spun) {
  bool went_on = false;
  const std::size_t first = random() % threads.size();
  for (std::size_t i = 0; i < threads.size(); i++) {
    Thread& next = *threads[(first + i) % threads.size()];
    if (next.done || next.index / 32 == but_warp || (next.until != nullptr && !(*next.until)())) continue;
    only_spun &= next.spins;
    resume(next);
    went_on = true;
    if (!lazy_copies && random() % 64 == 0) copy_something();
  }
  return went_on;
}

// One warp is held back for a while, again and again: those who do not wait for it run ahead as far as they can.
bool Block::step() {
  if (held_steps-- <= 0) {
    held_warp = random() % 4 == 0 ? -1 : static_cast<int>(random() % warps.size());
    held_steps = static_cast<int>(random() % 100);
  }
  bool only_spun = true, went_on = resume_all(held_warp, only_spun);
  if ((!went_on || only_spun) && held_warp >= 0) {
    held_steps = 0, held_warp = -1;
    went_on |= resume_all(-1, only_spun);
  }
  if (!went_on || only_spun) went_on |= copy_something();
  if (only_spun) sched_yield();  // what is polled is another block's to write
  return went_on;
}

void Block::report_deadlock() const {
  std::map<std::string, int> waiting;
  for (const auto& each : threads)
    if (!each->done) waiting["warp " + std::to_string(each->index / 32) + ": " + each->what]++;
  std::fprintf(stderr, "emulated GPU: block %u: every thread waits\n", threads[0]->position.block.x);
  for (const auto& [what, count] : waiting) std::fprintf(stderr, "  %s (%d threads)\n", what.c_str(), count);
  std::abort();
}

void Block::run() {
  this_block = this;
  for (const auto& each : threads) {
    each->stack = Stack::take();
    ucontext_t& entry = each->entry;
    getcontext(&entry);
    entry.uc_stack.ss_sp = each->stack->begin();
    entry.uc_stack.ss_size = Stack::kBytes;
    entry.uc_link = nullptr;
    makecontext(&entry, run_thread, 0);
  }
  const auto running = [&] {
    return std::any_of(threads.begin(), threads.end(), [](const auto& t) { return !t->done; });
  };
  while (running())
    if (!step()) report_deadlock();
  if (!loads.empty()) fail("a block ended before what it loaded had come");
  while (copy_something()) {
  }
  for (const auto& each : threads) Stack::give_back(std::move(each->stack));
  this_block = nullptr;
}

void run_grid(const dim3& grid, const dim3& block_size, std::size_t shared_bytes, const std::function<void()>& kernel) {
  static std::atomic<unsigned> launches{0};
  const unsigned launch = launches++, seed = static_cast<unsigned>(setting("FATTN_EMULATED_SEED", 0));
  const unsigned blocks = grid.x * grid.y * grid.z, size = block_size.x * block_size.y * block_size.z;
  std::atomic<unsigned> next{0};
  const auto work = [&] {
    const std::size_t space = shared_bytes / 1024 * 1024 + 1024;
    const std::unique_ptr<unsigned char, void (*)(void*)> shared(
        static_cast<unsigned char*>(std::aligned_alloc(1024, space)), std::free);
    for (unsigned index = next++; index < blocks; index = next++) {
      std::memset(shared.get(), 0xCB, space);
      Block block;
      block.random.seed(seed * 7919 + launch * 104729 + index);
      block.lazy_copies = block.random() % 2 == 0;
      block.shared = shared.get(), block.shared_bytes = shared_bytes, block.kernel = &kernel;
      block.writes.resize(shared_bytes / 16 + 1);
      block.warps.resize((size + 31) / 32);
      block.products.resize((size + 127) / 128);
      for (unsigned i = 0; i < size; i++) {
        auto& thread = *block.threads.emplace_back(std::make_unique<Thread>());
        thread.index = static_cast<int>(i);
        thread.position = {dim3(i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y),
                           dim3(index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y), block_size, grid};
      }
      block.run();
    }
  };
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < std::min(blocks, static_cast<unsigned>(multiprocessors())); i++) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
}

}  // namespace fattn::emulated_gpu
