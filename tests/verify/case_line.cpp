// SPDX-License-Identifier: Apache-2.0
#include "verify/case_line.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "fattn/error.hpp"

namespace fattn::verify {
namespace {

TEST(CaseLine, ComesBackAsItWent) {
  for (const char* line :
       {"fwd b1 hq2 hk2 sq3 sk4 d5 fp32",
        "fwd b1 hq2 hk2 sq3 sk4 d5 fp32 | seed=77 q_scale=0.1 k_ramp=-0.5 bias_shift=1e-3",
        "bwd b3 hq2 hk2 sq9 sk9 d5 tq12 tk13 seqused=qk bf16 causal | lengths_q=9,0,3 lengths_k=4,9,0 used_q=1,2,3 "
        "used_k=0,0,0"}) {
    const Case one = parse_case(line);
    const Case again = parse_case(to_line(one));
    EXPECT_EQ(again.problem, one.problem) << line;
    EXPECT_EQ(again.data, one.data) << line;
  }
  const Case one = parse_case("fwd b1 hq2 hk2 sq3 sk4 d5 fp32|seed=5   lengths_q=1,2");
  EXPECT_EQ(one.data.seed, 5u);
  EXPECT_EQ(one.data.lengths_q, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(to_line(parse_case("fwd b1 hq2 hk2 sq3 sk4 d5 fp32")).find('|'), std::string::npos);
}

std::string complaint(const std::string& line) {
  try {
    parse_case(line);
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::invalid_argument) << line;
    return error.what();
  }
  return "";
}

TEST(CaseLine, NamesTheWordItDoesNotKnow) {
  const std::string problem = "fwd b1 hq2 hk2 sq3 sk4 d5 fp32 | ";
  EXPECT_NE(complaint(problem + "sead=3").find("sead=3"), std::string::npos);
  for (const char* word :
       {"seed=", "seed=x", "seed=-1", "seed", "q_scale=1,2", "lengths_q=1,,2", "lengths_q=1.5", "| seed=1"}) {
    EXPECT_NE(complaint(problem + word), "") << word;
  }
}

TEST(CaseLine, FilesSayWhichLineIsWrong) {
  const std::string path = testing::TempDir() + "fattn_cases_of_case_line_test.txt";
  std::ofstream(path)
      << "# comment\n\nfwd b1 hq1 hk1 sq1 sk1 d8 bf16  # one\n  \nfwd b1 hq1 hk1 sq1 sk1 d8 bf16 nonsense\n";
  try {
    read_cases(path);
    ADD_FAILURE() << "nonsense was read";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(":5:"), std::string::npos) << error.what();
  }
  std::ofstream(path) << "# comment\n\nfwd b1 hq1 hk1 sq1 sk1 d8 bf16  # one\n";
  EXPECT_EQ(read_cases(path).size(), 1u);
  std::remove(path.c_str());
  EXPECT_THROW(read_cases(path), Error);
}

}  // namespace
}  // namespace fattn::verify
