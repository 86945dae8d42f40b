// SPDX-License-Identifier: Apache-2.0
#include "request.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace fattn::python {
namespace {

class Hash {
 public:
  void add(std::uint64_t word) {
    state_ ^= word;
    state_ *= 0x9E3779B97F4A7C15;
    state_ ^= state_ >> 29;
  }
  template <class Integer>
  requires std::is_integral_v<Integer> || std::is_enum_v<Integer>
  void add(Integer value) { add(static_cast<std::uint64_t>(value)); }
  void add(double value) { add(std::bit_cast<std::uint64_t>(value)); }
  template <class Value>
  void add(const std::optional<Value>& value) {
    add(value.has_value());
    if (value) add(*value);
  }
  void add(const Strides& strides) {
    for (const std::int64_t stride : {strides.batch, strides.seqlen, strides.head, strides.dim}) add(stride);
  }
  std::size_t value() const { return static_cast<std::size_t>(state_); }

 private:
  std::uint64_t state_ = 0;
};

// The fields that tell the calls of a program apart; the others only cost a comparison.
struct HashRequest {
  std::size_t operator()(const Request& request) const {
    const Problem& p = request.problem;
    Hash hash;
    hash.add(p.pass);
    hash.add(p.dtype);
    for (const std::int64_t extent : {p.batch, p.heads_q, p.heads_kv, p.seqlen_q, p.seqlen_k, p.head_dim, p.head_dim_v})
      hash.add(extent);
    hash.add(p.total_q);
    hash.add(p.total_k);
    for (const auto* strides : {&p.strides.q, &p.strides.k, &p.strides.v, &p.strides.dout}) hash.add(*strides);
    hash.add(p.softmax_scale);
    hash.add(p.mask.causal);
    hash.add(p.mask.window_left);
    hash.add(p.mask.window_right);
    hash.add(p.score.softcap);
    hash.add(p.return_lse);
    hash.add(request.kind);
    hash.add(request.index);
    hash.add(request.threads);
    hash.add(std::hash<std::string>()(request.kernel));
    return hash.value();
  }
};

Device device_of(const Request& request) {
  if (request.kind == DeviceKind::cuda) return cuda(request.index);
  return request.threads > 0 ? cpu(request.threads) : cpu();
}

// No query row, so nothing to compute. What else is wrong is said all the same, of the problem of one row.
bool is_empty(const Problem& p) {
  const bool packed = p.total_q.has_value();
  if (p.batch != 0 && (packed ? *p.total_q : p.seqlen_q) != 0) return false;
  Problem one = p;
  one.batch = std::max<std::int64_t>(p.batch, 1);
  one.seqlen_q = std::max<std::int64_t>(p.seqlen_q, 1);
  if (packed) one.total_q = std::max<std::int64_t>(*p.total_q, 1);
  one.strides = {};
  validate(one);
  return true;
}

}  // namespace

std::shared_ptr<Planned> find_plan(Request request) {
  if (is_empty(request.problem)) return nullptr;
  static std::mutex mutex;
  static std::unordered_map<Request, std::shared_ptr<Planned>, HashRequest> plans;
  static std::int64_t serial = 0;

  // The variable may change while a program runs; plan() reads it where no row is named.
  if (request.kernel.empty()) {
    if (const char* named = std::getenv("FATTN_KERNEL"); named != nullptr) request.kernel = named;
  }
  const std::lock_guard lock(mutex);
  if (const auto found = plans.find(request); found != plans.end()) return found->second;
  auto planned =
      std::make_shared<Planned>(Planned{plan(request.problem, device_of(request), request.kernel), ++serial});
  if (plans.size() >= kMaxPlans) plans.clear();
  plans.emplace(std::move(request), planned);
  return planned;
}

}  // namespace fattn::python
