// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "emulated_gpu/block.hpp"
#include "emulated_gpu/copies.hpp"
#include "emulated_gpu/products.hpp"

// The state of a block; only this folder's sources see it.
namespace fattn::emulated_gpu {

// Memory for a coroutine's stack, with a page that may not be touched below it. Used again when given back.
class Stack {
 public:
  static std::unique_ptr<Stack> take();
  static void give_back(std::unique_ptr<Stack> stack);
  Stack();
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  void* begin() const { return memory_; }
  static constexpr std::size_t kBytes = 256 * 1024;

 private:
  void* memory_;
};

struct Thread {
  std::unique_ptr<Stack> stack;
  Position position;
  int index = 0;
  unsigned fences = 0;  // for the copy engine and the tensor cores
  bool started = false, done = false, spins = false;
  const char* what = nullptr;                    // it waits for
  const std::function<bool()>* until = nullptr;  // null: it can go on
  jmp_buf resume;
  ucontext_t entry;
  StoreGroups stores;
  ProductMarks products;
};

struct Warp {
  std::array<Lanes, 2> lanes{};
  const char* what = nullptr;
  int arrived = 0;
  unsigned generation = 0;
};

struct NamedBarrier {
  int arrived = 0, expected = 0;
  unsigned generation = 0;
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  std::vector<ProductQueue> products;  // of each warpgroup
  std::array<NamedBarrier, 16> barriers{};
  std::vector<Transfer> loads;  // asked for
  unsigned char* shared = nullptr;
  std::size_t shared_bytes = 0;
  struct Write {
    int thread = -1;  // -1: nobody, or the copy engine
    unsigned fences = 0;
  };
  std::vector<Write> writes;  // the last of each 16 bytes of shared memory
  std::mt19937 random;
  bool lazy_copies = false;  // nothing is copied as long as something else can go on
  int held_warp = -1;        // does not go on as long as others can, for so many steps
  int held_steps = 0;
  const std::function<void()>* kernel = nullptr;

  void run();
  bool step();  // false: nobody could go on
  bool resume_all(int but_warp, bool& only_spun);
  void resume(Thread& thread);
  bool copy_something();
  [[noreturn]] void report_deadlock() const;
};

Block& block();
Thread& thread();

}  // namespace fattn::emulated_gpu
