// SPDX-License-Identifier: Apache-2.0
#include "core/lengths.hpp"

#include <array>

#include "core/expect_error.hpp"

namespace fattn {
namespace {

using Cu = std::array<std::int32_t, 4>;
using Used = std::array<std::int32_t, 3>;

const char* const kPacked = "fwd b3 sq5 sk7 d8 tq10 tk12 seqused=qk";

void check(const Cu& q, const Cu& k, const Used& used_q, const Used& used_k) {
  check_lengths(parse_problem(kPacked), {q.data(), k.data(), used_q.data(), used_k.data()});
}

TEST(Lengths, GoodOnes) {
  EXPECT_NO_THROW(check({0, 5, 5, 10}, {0, 0, 5, 12}, {5, 0, 0}, {0, 5, 7}));
  EXPECT_NO_THROW(check({0, 1, 2, 3}, {0, 0, 0, 0}, {1, 1, 1}, {0, 0, 0}));  // buffers longer than what is used
}

TEST(Lengths, BadOnesNameTheEntry) {
  const Cu q = {0, 5, 5, 10}, k = {0, 0, 5, 12};
  const Used none = {0, 0, 0};
  const auto bad = [](std::vector<std::string> parts, auto... arguments) {
    parts.emplace_back("nearest: ");
    expect_error(Status::invalid_argument, parts, [&] { check(arguments...); });
  };
  bad({"cu_seqlens_q[0] = 1 must be 0"}, Cu{1, 5, 5, 10}, k, none, none);
  bad({"cu_seqlens_q[2] = 4 is below cu_seqlens_q[1] = 5"}, Cu{0, 5, 4, 9}, k, none, none);
  bad({"cu_seqlens_q[1] = -1 is below"}, Cu{0, -1, 4, 9}, k, none, none);
  bad({"cu_seqlens_q[3] = 11", "longer than seqlen_q = 5", "nearest: 10"}, Cu{0, 5, 5, 11}, k, none, none);
  bad({"cu_seqlens_q[3] = 11 is beyond the 10 rows", "nearest: 10"}, Cu{0, 5, 10, 11}, k, none, none);
  bad({"cu_seqlens_k[1] = 8", "longer than seqlen_k = 7"}, q, Cu{0, 8, 8, 12}, none, none);
  bad({"cu_seqlens_k[1] = 2147483647"}, q, Cu{0, 2147483647, 8, 12}, none, none);
  bad({"seqused_q[1] = 1 must be in [0, 0]"}, q, k, Used{5, 1, 0}, none);
  bad({"seqused_k[2] = 8 must be in [0, 7]", "nearest: 7"}, q, k, none, Used{0, 0, 8});
  bad({"seqused_k[0] = -1"}, q, k, none, Used{-1, 0, 0});
}

TEST(Lengths, DenseAndAppend) {
  const Used used = {5, 0, 7};
  EXPECT_NO_THROW(check_lengths(parse_problem("fwd b3 sq5 sk7 d8 seqused=k"), {.seqused_k = used.data()}));
  expect_error(Status::invalid_argument, {"seqused_q[2] = 7 must be in [0, 5]"},
               [&] { check_lengths(parse_problem("fwd b3 sq5 sk7 d8 seqused=q"), {.seqused_q = used.data()}); });
  expect_error(Status::invalid_argument, {"seqused_k[2] = 7 must be in [0, 6]"}, [&] {
    check_lengths(parse_problem("decode b3 sq5 sk7 d8 seqused=k append=1"), {.seqused_k = used.data()});
  });
}

}  // namespace
}  // namespace fattn
