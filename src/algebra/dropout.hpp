// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "algebra/philox.hpp"

namespace fattn {

// What a dropout probability means in numbers: a pair is kept when its word is at least the threshold.
struct DropoutRule {
  std::uint32_t threshold = 0;
  float factor = 1;  // of the weights that are kept

  static DropoutRule of(double probability) {
    // Adding 2^52 leaves no bit for the fraction: to nearest even.
    const double scaled = (probability * 0x1p32 + 0x1p52) - 0x1p52, most = 4294967295.0;
    return {static_cast<std::uint32_t>(scaled < most ? scaled : most), static_cast<float>(1 / (1 - probability))};
  }
};

// The random words of one sequence and head (docs/numerics.md, "Dropout"). Four pairs {i, i + 8} x {j, j + 8} share a
// call.
struct DropoutWords {
  std::uint32_t k0, k1, c2, c3;

  // slice = batch * heads_q + head
  FATTN_HD static DropoutWords of(std::uint64_t seed, std::uint64_t offset, std::uint32_t slice) {
    return {static_cast<std::uint32_t>(seed),
            static_cast<std::uint32_t>(seed >> 32) ^ static_cast<std::uint32_t>(offset >> 32), slice,
            static_cast<std::uint32_t>(offset)};
  }
  // Words of the four pairs, for a query and a key whose bit 3 is clear: [2 * (query is i + 8) + (key is j + 8)].
  FATTN_HD PhiloxWords four(int query, int key) const {
    const auto group = [](int n) { return static_cast<std::uint32_t>(n / 16 * 8 + n % 8); };
    return philox(group(query), group(key), c2, c3, k0, k1);
  }
  FATTN_HD std::uint32_t word(int query, int key) const {
    return four(query, key).word[2 * (query / 8 % 2) + key / 8 % 2];
  }
};

}  // namespace fattn
