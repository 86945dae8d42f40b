// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector_types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

// The threads of a block as coroutines on one thread of the host, and how they wait for each other. Whoever can go on
// is taken in an order that depends on a seed: what a kernel computes must not.
namespace fattn::emulated_gpu {

struct Position {
  dim3 thread, block, block_size, grid_size;
};
const Position& here();  // of the thread that runs

// Prints what is wrong, where, and ends the process.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Suspends the thread until `met`, which is asked again and again.
void wait(const char* what, const std::function<bool()>& met);
void spin();  // others first: called where a thread polls memory
bool chance(int one_in);

// Shared memory by 32-bit addresses; both check that it is the block's.
std::uint32_t shared_address(const void* pointer);
unsigned char* shared_memory(std::uint32_t address, std::size_t bytes);
unsigned char* dynamic_shared();

// Ordinary writes must be fenced by their own thread before the copy engine or the tensor cores read them.
void wrote_shared(std::uint32_t address, std::size_t bytes);
void fence_async();
bool fenced(std::uint32_t address, std::size_t bytes);
void written_async(std::uint32_t address, std::size_t bytes);

// The 32 lanes of a warp meet, each with some words, and see everybody's. All must come by the same name.
using Words = std::array<std::uint32_t, 5>;
using Lanes = std::array<Words, 32>;
const Lanes& meet_warp(const char* what, const Words& words);

void sync_block();
void named_barrier(int id, int threads, bool wait_there);

void mbarrier_init(std::uint32_t barrier, int arrivals);
void mbarrier_arrive(std::uint32_t barrier, std::uint32_t bytes);
void mbarrier_complete(std::uint32_t barrier, std::uint32_t bytes);
void mbarrier_wait(std::uint32_t barrier, std::uint32_t parity);

// Runs every block of a grid, as many at a time as the device has multiprocessors.
void run_grid(const dim3& grid, const dim3& block, std::size_t shared_bytes, const std::function<void()>& kernel);
int multiprocessors();
bool in_device_memory(const void* pointer);

}  // namespace fattn::emulated_gpu
