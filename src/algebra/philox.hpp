// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "algebra/host_device.hpp"

namespace fattn {

struct PhiloxWords {
  std::uint32_t word[4];
};

// Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, 2011): four random words from a counter of four and a key of two.
FATTN_HD PhiloxWords philox(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t c3, std::uint32_t k0,
                            std::uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c0, b = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(b);
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace fattn
