// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "fattn/attention.hpp"

namespace fattn::host {

// Worker threads that wait between jobs: a short spin, then a futex. Several callers may run jobs at the same time;
// idle workers join any job that still has items. A caller always works too, so a job ends even if no worker ever
// comes.
class Pool final : public Executor {
 public:
  explicit Pool(int threads);  // counting the caller of parallel_for
  ~Pool() override;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Grows to that many, or as many as the system gives; the only member that allocates.
  void reserve(int threads);
  int concurrency() const override { return concurrency_.load(std::memory_order_relaxed); }
  void parallel_for(std::int64_t items, void (*body)(void* context, std::int64_t item, int worker),
                    void* context) override;

 private:
  struct Job;
  void work(int worker);
  Job* join_job();
  void wake();
  bool wait_for_work(std::uint32_t seen);

  std::mutex mutex_;     // guards jobs_ and workers_
  Job* jobs_ = nullptr;  // intrusive list of running jobs, which live on their callers' stacks
  std::vector<std::jthread> workers_;
  std::atomic<int> concurrency_{1};
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint32_t> posted_{0};    // changes when there may be something new to join
  std::atomic<std::uint32_t> finished_{0};  // changes when a worker leaves a job
};

// The library's own pool. shared_pool(threads) makes it, or grows it, at plan time; shared_pool() is what run() uses:
// null when no plan asked for threads in this process (a forked child has none of its parent's threads).
Pool* shared_pool(int threads);
Pool* shared_pool();

// Calls body(item, lane) once for every item in [0, items). Lanes are blocks of scratch memory: at most `lanes` calls
// are in flight, each with another lane, whatever the executor's concurrency. Which lane serves an item is left to
// chance, so a body must compute an item alike in every lane; then results have the same bits for any executor.
template <class Body>
void for_each_item(Executor* executor, int lanes, std::int64_t items, const Body& body) {
  struct Context {
    std::atomic<std::int64_t> next{0};
    std::int64_t items;
    const Body& body;
  } context{.items = items, .body = body};
  const auto serve = [](void* opaque, std::int64_t lane, int) {
    Context& c = *static_cast<Context*>(opaque);
    for (;;) {
      const std::int64_t item = c.next.fetch_add(1, std::memory_order_relaxed);
      if (item >= c.items) return;
      c.body(item, static_cast<int>(lane));
    }
  };
  const std::int64_t used = items < lanes ? items : lanes;
  if (executor == nullptr || used <= 1) return serve(&context, 0, 0);
  executor->parallel_for(used, serve, &context);
}

}  // namespace fattn::host
