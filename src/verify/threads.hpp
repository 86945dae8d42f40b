// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "fattn/attention.hpp"

namespace fattn::verify {

// An executor that starts its threads for each call: enough for oracles, whose items take long.
class Threads final : public Executor {
 public:
  explicit Threads(int count = static_cast<int>(std::thread::hardware_concurrency())) : count_(count > 1 ? count : 1) {}
  int concurrency() const override { return count_; }
  void parallel_for(std::int64_t items, void (*body)(void* context, std::int64_t item, int worker),
                    void* context) override {
    std::atomic<std::int64_t> next{0};
    const auto work = [&](int worker) {
      for (std::int64_t item = next++; item < items; item = next++) body(context, item, worker);
    };
    std::vector<std::thread> others;
    for (int worker = 1; worker < count_ && worker < items; ++worker) others.emplace_back(work, worker);
    work(0);
    for (std::thread& other : others) other.join();
  }

 private:
  int count_;
};

}  // namespace fattn::verify
