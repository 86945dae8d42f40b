// SPDX-License-Identifier: Apache-2.0
#include "cpu/threads.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace fattn::host {
namespace {

// Runs `items` and says how often each was served; also that no worker served two at a time.
std::vector<int> serve(Executor& executor, std::int64_t items) {
  struct Context {
    std::vector<std::atomic<int>> served;
    std::vector<std::atomic<bool>> busy;
    std::atomic<int> clashes{0};
  } context{std::vector<std::atomic<int>>(static_cast<std::size_t>(items)),
            std::vector<std::atomic<bool>>(static_cast<std::size_t>(executor.concurrency()))};
  const auto body = [](void* opaque, std::int64_t item, int worker) {
    Context& c = *static_cast<Context*>(opaque);
    if (c.busy.at(static_cast<std::size_t>(worker)).exchange(true)) ++c.clashes;
    ++c.served[static_cast<std::size_t>(item)];
    c.busy[static_cast<std::size_t>(worker)] = false;
  };
  executor.parallel_for(items, body, &context);
  EXPECT_EQ(context.clashes, 0);
  std::vector<int> counts;
  for (const auto& count : context.served) counts.push_back(count);
  return counts;
}

TEST(Pool, ServesEveryItemOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    Pool pool(threads);
    EXPECT_EQ(pool.concurrency(), threads);
    for (const std::int64_t items : {0, 1, 2, 7, 1000}) {
      EXPECT_EQ(serve(pool, items), std::vector<int>(static_cast<std::size_t>(items), 1)) << threads << ", " << items;
    }
  }
}

TEST(Pool, ManySmallJobs) {
  Pool pool(4);
  for (int job = 0; job < 2000; ++job) ASSERT_EQ(serve(pool, 3), std::vector<int>(3, 1));
}

TEST(Pool, SeveralCallersAtATime) {
  Pool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int job = 0; job < 200; ++job) wrong += serve(pool, 20) != std::vector<int>(20, 1);
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Pool, WorkersReallyWorkSideBySide) {
  Pool pool(2);
  std::atomic<int> inside{0};
  // Each of the two items waits for the other one.
  const auto body = [](void* opaque, std::int64_t, int) {
    auto& count = *static_cast<std::atomic<int>*>(opaque);
    ++count;
    while (count < 2) std::this_thread::yield();
  };
  pool.parallel_for(2, body, &inside);
  EXPECT_EQ(inside, 2);
}

TEST(Pool, GrowsAndNeverShrinks) {
  Pool pool(2);
  pool.reserve(5);
  EXPECT_EQ(pool.concurrency(), 5);
  pool.reserve(3);
  EXPECT_EQ(pool.concurrency(), 5);
  EXPECT_EQ(serve(pool, 100), std::vector<int>(100, 1));
}

TEST(Pool, StopsWhileAsleepAndWhileSpinning) {
  for (int i = 0; i < 50; ++i) {
    Pool pool(4);
    if (i % 2 == 0) serve(pool, 10);
    if (i % 5 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(ForEachItem, NeverMoreLanesThanAsked) {
  Pool pool(6);
  std::vector<std::atomic<bool>> busy(2);
  std::atomic<int> clashes{0}, served{0};
  for_each_item(&pool, 2, 500, [&](std::int64_t, int lane) {
    if (busy.at(static_cast<std::size_t>(lane)).exchange(true)) ++clashes;
    ++served;
    busy[static_cast<std::size_t>(lane)] = false;
  });
  EXPECT_EQ(clashes, 0);
  EXPECT_EQ(served, 500);
}

TEST(ForEachItem, WithoutAnExecutor) {
  std::vector<std::int64_t> order;
  for_each_item(nullptr, 4, 5, [&](std::int64_t item, int lane) {
    EXPECT_EQ(lane, 0);
    order.push_back(item);
  });
  EXPECT_EQ(order, (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
}

TEST(SharedPool, GrowsToTheLargestPlan) {
  Pool* const pool = shared_pool(3);
  ASSERT_NE(pool, nullptr);
  EXPECT_GE(pool->concurrency(), 3);
  EXPECT_EQ(shared_pool(2), pool);
  EXPECT_EQ(shared_pool(), pool);
}

#if !defined(__SANITIZE_THREAD__)
TEST(SharedPool, AForkedChildStartsWithoutOne) {
  ASSERT_NE(shared_pool(3), nullptr);
  const pid_t child = fork();
  if (child == 0) {
    bool good = shared_pool() == nullptr;
    good = good && serve(*shared_pool(2), 50) == std::vector<int>(50, 1);
    _exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(serve(*shared_pool(3), 50), std::vector<int>(50, 1));
}
#endif

}  // namespace
}  // namespace fattn::host
