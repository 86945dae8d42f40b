// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

namespace fattn::verify {

// splitmix64 (Steele, Lea and Flood, 2014): tiny, and every seed starts a stream of its own.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  std::int64_t between(std::int64_t low, std::int64_t high) {               // both included
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  // Box and Muller's pairs of normal numbers.
  double normal() {
    if (spare_ready_) {
      spare_ready_ = false;
      return spare_;
    }
    const double radius = std::sqrt(-2 * std::log(1 - uniform())), angle = 6.283185307179586 * uniform();
    spare_ = radius * std::sin(angle);
    spare_ready_ = true;
    return radius * std::cos(angle);
  }

 private:
  std::uint64_t state_;
  double spare_ = 0;
  bool spare_ready_ = false;
};

// The seed of one named part, so that values do not depend on what else a case has.
inline std::uint64_t seed_of(std::uint64_t seed, std::string_view name, std::int64_t a = 0, std::int64_t b = 0,
                             std::int64_t c = 0) {
  std::uint64_t hash = Random(seed).next();
  for (const char letter : name) hash = Random(hash ^ static_cast<unsigned char>(letter)).next();
  for (const std::int64_t index : {a, b, c}) hash = Random(hash ^ static_cast<std::uint64_t>(index)).next();
  return hash;
}

}  // namespace fattn::verify
