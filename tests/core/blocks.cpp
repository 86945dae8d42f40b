// SPDX-License-Identifier: Apache-2.0
#include "core/blocks.hpp"

#include <cstddef>
#include <memory>
#include <vector>

#include "core/expect_error.hpp"
#include "fattn/attention.hpp"

namespace fattn {
namespace {

// Two tables of 3 rows and 4 columns of blocks.
const char* const kTables = "fwd hq2 hk1 sq20 sk30 d8 fp32 block_sparse=8,8,heads";

struct Tables {
  std::vector<std::int32_t> offsets = {0, 2, 2, 6, 6, 7, 8, 8};
  std::vector<std::int32_t> columns = {1, 3, 0, 1, 2, 3, 0, 3};
  std::vector<std::int64_t> bits = {-1, 0, -1, -1, 64, -1, -1, -1};
  bool has_mask = true;

  void check() const { check_blocks(parse_problem(kTables), {offsets.data(), columns.data(), bits.data(), has_mask}); }
};

TEST(Blocks, GoodOnes) {
  EXPECT_NO_THROW(Tables().check());
  EXPECT_EQ(count_of_block_offsets(parse_problem(kTables)), 8);
  EXPECT_EQ(check_block_offsets(parse_problem(kTables), Tables().offsets.data()), 8);
  Tables shared;  // both heads read the same entries
  shared.offsets = {0, 2, 2, 6, 0, 2, 2, 6};
  EXPECT_NO_THROW(shared.check());
  EXPECT_EQ(check_block_offsets(parse_problem(kTables), shared.offsets.data()), 6);
  Tables full;
  full.bits.assign(8, -1);
  full.has_mask = false;
  EXPECT_NO_THROW(full.check());
  const std::vector<std::int32_t> none(8, 0);
  EXPECT_EQ(check_block_offsets(parse_problem(kTables), none.data()), 0);
}

TEST(Blocks, BadOnesNameTheEntry) {
  const auto bad = [](std::vector<std::string> parts, auto change) {
    Tables tables;
    change(tables);
    expect_error(Status::invalid_argument, parts, [&] { tables.check(); });
  };
  bad({"block_offsets[0] = 1", "nearest: 0"}, [](Tables& t) { t.offsets[0] = 1; });
  bad({"block_offsets[0] = -1", "nearest: 0"}, [](Tables& t) { t.offsets[0] = -1; });
  bad({"block_offsets[2] = 1 is below block_offsets[1] = 2", "nearest: 2"}, [](Tables& t) { t.offsets[2] = 1; });
  bad({"block_offsets[1] = 5", "5 entries and it has 4 blocks", "nearest: 4"}, [](Tables& t) { t.offsets[1] = 5; });
  bad({"block_offsets[3] = 2147483647"}, [](Tables& t) { t.offsets[3] = 2147483647; });
  bad({"block_offsets[4] = 7 begins a table outside of the 6 entries", "nearest: 6"},
      [](Tables& t) { t.offsets[4] = 7; });
  bad({"block_columns[1] = 4 is outside of the 4 blocks", "nearest: 3"}, [](Tables& t) { t.columns[1] = 4; });
  bad({"block_columns[0] = -1", "nearest: 0"}, [](Tables& t) { t.columns[0] = -1; });
  bad({"block_columns[4] = 1 does not come after block_columns[3] = 1", "nearest: 2"},
      [](Tables& t) { t.columns[4] = 1; });
  bad({"block_bits[5] = -2", "nearest: -1"}, [](Tables& t) { t.bits[5] = -2; });
  bad({"block_bits[1] = 0 is a bit of block_mask, which is null"}, [](Tables& t) { t.has_mask = false; });
}

// A run refuses them before anything is written.
TEST(Blocks, RunChecksThem) {
  const Problem problem = parse_problem(kTables);
  Tables tables;
  std::vector<float> q(2 * 20 * 8, 0.5F), k(30 * 8, 0.5F), o(2 * 20 * 8, -7.0F);
  const std::vector<std::uint32_t> mask(4, 0xffffffffu);
  const Plan chosen = plan(problem, cpu(1));
  std::vector<std::byte> memory(chosen.workspace_bytes() + Plan::workspace_alignment());
  void* workspace = memory.data();
  std::size_t room = memory.size();
  ASSERT_NE(std::align(Plan::workspace_alignment(), chosen.workspace_bytes(), workspace, room), nullptr);
  Buffers buffers;
  buffers.q = q.data();
  buffers.k = buffers.v = k.data();
  buffers.o = o.data();
  buffers.block_offsets = tables.offsets.data();
  buffers.block_columns = tables.columns.data();
  buffers.block_bits = tables.bits.data();
  buffers.block_mask = mask.data();
  tables.columns[7] = 4;
  expect_error(Status::invalid_argument, {"block_columns[7] = 4"}, [&] {
    run(chosen, buffers, {workspace, chosen.workspace_bytes()});
  });
  expect_error(Status::invalid_argument, {"block_columns[7] = 4"}, [&] { validate_device(chosen, buffers); });
  EXPECT_EQ(o, std::vector<float>(2 * 20 * 8, -7.0F));
  tables.columns[7] = 3;
  EXPECT_NO_THROW(validate_device(chosen, buffers));
  run(chosen, buffers, {workspace, chosen.workspace_bytes()});
  EXPECT_EQ(o[0], 0.5F);
}

}  // namespace
}  // namespace fattn
