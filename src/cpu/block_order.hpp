// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

namespace fattn::host {

// In which order the blocks of the backward pass are taken. The score matrix of each pair (sequence, key head) is cut
// into n x n blocks. Row r takes its blocks in steps: step w is the block of keys (r - w) mod n. A block adds to the dQ
// of its row and to the dK, dV of its column, so step w of a row follows step w - 1 of the same row and step w - 1 of
// the row before (mod n), whose column is the same. Every sum then has one order, whatever else differs.
//
// Some steps of one row are an item, so that a lane keeps the row's operands. First come the steps up to r (keys from
// the diagonal down to 0), which wait for nothing beside them, then the others, where a row begins one step behind the
// row before. What an item waits for is always part of an earlier item.
struct BlockRun {
  std::int64_t pair, row;
  std::int64_t first, last;  // steps [first, last); none: nothing to do
};

class BlockOrder {
 public:
  BlockOrder(std::int64_t pairs, std::int64_t n, int lanes) : pairs_(pairs), n_(n) {
    // One lane stays with a row and a pair as long as it can: its sums stay in the caches. More lanes need neighbours
    // that do not wait for each other, and short runs towards the end.
    constexpr std::int64_t kLongest = 4;
    if (n == 0) return;
    steps_ = lanes == 1 ? n : std::clamp<std::int64_t>(n * pairs / (4 * lanes), 1, std::min(kLongest, n));
    side_by_side_ = std::clamp<std::int64_t>(lanes, 1, std::max<std::int64_t>(pairs, 1));
    runs_ = (n + steps_ - 1) / steps_;
  }

  std::int64_t items() const { return (pairs_ + side_by_side_ - 1) / side_by_side_ * side_by_side_ * n_ * runs_ * 2; }
  BlockRun at(std::int64_t item) const {
    const std::int64_t place = item / side_by_side_ % (n_ * runs_), half = item / side_by_side_ / (n_ * runs_);
    const std::int64_t pair = half / 2 * side_by_side_ + item % side_by_side_;
    const bool second = half % 2 != 0;
    const std::int64_t run = second ? place % runs_ : place / n_;
    const std::int64_t row = second ? place / runs_ - run * steps_ : place % n_;
    if (pair >= pairs_ || row < 0) return {pair, 0, 0, 0};
    const std::int64_t begin = (second ? row + 1 : 0) + run * steps_, end = second ? n_ : row + 1;
    return {pair, row, begin, std::min(end, begin + steps_)};
  }

 private:
  std::int64_t pairs_, n_;
  std::int64_t steps_ = 1;         // of an item, at most
  std::int64_t side_by_side_ = 1;  // pairs whose items alternate
  std::int64_t runs_ = 0;          // items of half a row
};

}  // namespace fattn::host
