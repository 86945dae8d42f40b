// SPDX-License-Identifier: Apache-2.0
#include "cpu/threads.hpp"

#include <pthread.h>

#include <system_error>

namespace fattn::host {
namespace {

// About 20 us on current machines: longer than the gap between two phases of one run, shorter than a scheduler tick.
constexpr int kSpins = 1000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

struct Pool::Job {
  std::int64_t items;
  void (*body)(void*, std::int64_t, int);
  void* context;
  std::atomic<std::int64_t> next{0};
  std::atomic<int> helpers{0};  // workers inside; grows only under the pool's mutex while the job is listed
  Job* link = nullptr;

  void serve(int worker) {
    for (;;) {
      const std::int64_t item = next.fetch_add(1, std::memory_order_relaxed);
      if (item >= items) return;
      body(context, item, worker);
    }
  }
};

Pool::Pool(int threads) { reserve(threads); }

Pool::~Pool() {
  stopping_.store(true);
  wake();
  // Each jthread joins when the vector goes.
}

void Pool::reserve(int threads) {
  const std::lock_guard lock(mutex_);
  while (static_cast<int>(workers_.size()) + 1 < threads) {
    const int worker = static_cast<int>(workers_.size()) + 1;
    try {
      workers_.emplace_back([this, worker] { work(worker); });
    } catch (const std::system_error&) {
      return;  // the system has no more threads; any number does
    }
    concurrency_.store(worker + 1, std::memory_order_relaxed);
  }
}

void Pool::wake() {
  posted_.fetch_add(1, std::memory_order_release);
  posted_.notify_all();
}

void Pool::parallel_for(std::int64_t items, void (*body)(void*, std::int64_t, int), void* context) {
  Job job{.items = items, .body = body, .context = context};
  if (items <= 1 || concurrency() == 1) return job.serve(0);
  {
    const std::lock_guard lock(mutex_);
    job.link = jobs_;
    jobs_ = &job;
  }
  wake();
  job.serve(0);
  {
    const std::lock_guard lock(mutex_);
    Job** place = &jobs_;
    while (*place != &job) place = &(*place)->link;
    *place = job.link;
  }
  // No one can join any more. The workers inside announce their end on the pool, which outlives the job.
  for (int spin = 0; job.helpers.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins) {
      pause();
      continue;
    }
    const std::uint32_t seen = finished_.load(std::memory_order_acquire);
    if (job.helpers.load(std::memory_order_acquire) != 0) finished_.wait(seen, std::memory_order_acquire);
  }
}

Pool::Job* Pool::join_job() {
  const std::lock_guard lock(mutex_);
  for (Job* job = jobs_; job != nullptr; job = job->link) {
    if (job->next.load(std::memory_order_relaxed) < job->items) {
      job->helpers.fetch_add(1, std::memory_order_relaxed);
      return job;
    }
  }
  return nullptr;
}

bool Pool::wait_for_work(std::uint32_t seen) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (posted_.load(std::memory_order_acquire) != seen) return !stopping_.load();
    pause();
  }
  posted_.wait(seen, std::memory_order_acquire);
  return !stopping_.load();
}

void Pool::work(int worker) {
  for (;;) {
    // Read before looking: a job posted after the look changes it and ends the wait.
    const std::uint32_t seen = posted_.load(std::memory_order_acquire);
    if (stopping_.load()) return;
    Job* const job = join_job();
    if (job == nullptr) {
      if (!wait_for_work(seen)) return;
      continue;
    }
    job->serve(worker);
    job->helpers.fetch_sub(1, std::memory_order_release);
    // From here on the job may be gone.
    finished_.fetch_add(1, std::memory_order_release);
    finished_.notify_all();
  }
}

namespace {

std::atomic<Pool*> current_pool{nullptr};
std::mutex pool_mutex;

// The child of a fork has no workers, and another thread may have held the old pool's mutex: it starts without a pool.
void before_fork() { pool_mutex.lock(); }
void after_fork_in_parent() { pool_mutex.unlock(); }
void after_fork_in_child() {
  current_pool.store(nullptr);
  pool_mutex.unlock();
}

}  // namespace

Pool* shared_pool(int threads) {
  if (threads <= 1) return shared_pool();
  const std::lock_guard lock(pool_mutex);
  Pool* pool = current_pool.load();
  if (pool == nullptr) {
    static const int registered = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    static_cast<void>(registered);
    // Never destroyed: at exit other threads may still be running, and the system ends idle workers better than we can.
    pool = new Pool(threads);
    current_pool.store(pool);
  } else {
    pool->reserve(threads);
  }
  return pool;
}

Pool* shared_pool() { return current_pool.load(std::memory_order_acquire); }

}  // namespace fattn::host
