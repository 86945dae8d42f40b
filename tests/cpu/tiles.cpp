// SPDX-License-Identifier: Apache-2.0
#include "cpu/tiles.hpp"

#include <gtest/gtest.h>

#include "core/registry.hpp"
#include "core/tiles.hpp"
#include "cpu/support.hpp"

namespace fattn {
namespace {

const Kernel& kernel_named(const std::string& name) {
  for (const Row& row : rows()) {
    if (row.name == name) return *row.kernel;
  }
  throw Error(Status::invalid_argument, name);
}

// What `fattn tune` may choose is as right as the tile that a row takes by itself.
TEST(CpuTiles, EveryOneIsRight) {
  for (const char* line : {"fwd b1 hq2 hk1 sq200 sk210 d40 dv24 bf16 causal softcap=20 lse max_logit",
                           "fwd b2 hq1 hk1 sq20 sk1500 d24 fp32 window=900,0 bias=hqk sinks dropout=0.2 lse",
                           "bwd b1 hq2 hk1 sq210 sk200 d24 dv40 bf16 causal sinks dsink",
                           "bwd b1 hq1 hk1 sq100 sk120 d16 fp32 documents block_sparse=40,30 bias=qk dbias"}) {
    const Problem problem = parse_problem(line);
    verify::CaseData data(problem, cpu(2));
    verify::Judge judge(data);
    for (const std::string& target : targets(line)) {
      const std::string row = row_for(target, line);
      const std::vector<std::string> tiles = tiles_of(kernel_named(row), problem, cpu(2));
      EXPECT_GE(tiles.size(), 1u);
      EXPECT_TRUE(plan(problem, cpu(2), row).launch_shape().tile.starts_with(tiles.front() + " ")) << row;
      for (const std::string& tile : tiles) {
        const std::string chosen = row + "@" + tile;
        EXPECT_TRUE(plan(problem, cpu(2), chosen).launch_shape().tile.starts_with(tile + " ")) << chosen;
        const verify::CheckResult result = judge.check(chosen);
        EXPECT_TRUE(result.pass) << chosen << '\n' << result.table();
      }
    }
  }
}

// They read keys where they lie, once for all heads that share them: no tile, and `explain` says so.
TEST(CpuTiles, FewQueriesHaveNone) {
  const Problem problem = parse_problem("fwd b1 hq8 hk2 sq1 sk4096 d64 fp32");
  for (const std::string& target : targets(" fp32")) {
    const std::string row = row_for(target, "fwd");
    EXPECT_TRUE(tiles_of(kernel_named(row), problem, cpu(2)).empty()) << row;
    EXPECT_THROW(plan(problem, cpu(2), row + "@96x96"), Error);
    const Plan chosen = plan(problem, cpu(2), row);
    EXPECT_NE(chosen.launch_shape().tile.find("4 heads side by side"), std::string::npos) << chosen.launch_shape().tile;
    EXPECT_EQ(chosen.traffic().bytes, 2 * 8 * 64 * 4.0 + 2 * 4096 * (64 + 64) * 4.0) << row;
  }
}

TEST(CpuTiles, SidesAreWholePanels) {
  for (const host::Blocking blocking : {host::Blocking{4, 8, "4x8"}, host::Blocking{6, 16, "6x16"},
                                        host::Blocking{12, 32, "12x32"}, host::Blocking{16, 32, "16x32", true}}) {
    for (const host::Tile tile : host::forward_tiles(blocking, true))
      EXPECT_EQ(tile.q % blocking.panel, 0) << blocking.text;
    for (const host::Tile tile : host::backward_tiles(blocking)) EXPECT_EQ(tile.k % blocking.panel, 0) << blocking.text;
    EXPECT_GE(host::forward_tiles(blocking, true).size(), 3u);
  }
}

}  // namespace
}  // namespace fattn
