// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "core/expect_error.hpp"
#include "core/fake_rows.hpp"
#include "fattn/workspace.hpp"

namespace fattn {
namespace {

Plan plan_with_workspace(std::size_t bytes, const Device& device) {
  fake::workspace_bytes = bytes;
  const Plan plan = fake_plan("fwd sq8 d128", device);
  fake::workspace_bytes = 0;
  return plan;
}

TEST(HostWorkspace, IsAsLargeAlignedAndZeroAsPlansAskFor) {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{255}, std::size_t{100'000}}) {
    const HostWorkspace owner(plan_with_workspace(bytes, cpu(2)));
    const Workspace workspace = owner;
    EXPECT_EQ(workspace.bytes, bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(workspace.data) % Plan::workspace_alignment(), 0u);
    const auto* first = static_cast<const char*>(workspace.data);
    EXPECT_TRUE(std::all_of(first, first + bytes, [](char each) { return each == 0; }));
  }
}

TEST(HostWorkspace, OfNothingIsNull) {
  const HostWorkspace owner(plan_with_workspace(0, cpu(2)));
  const Workspace workspace = owner;
  EXPECT_EQ(workspace.data, nullptr);
  EXPECT_EQ(workspace.bytes, 0u);
}

TEST(HostWorkspace, MovesItsMemory) {
  HostWorkspace first(plan_with_workspace(512, cpu(2)));
  void* const data = Workspace(first).data;
  const HostWorkspace second = std::move(first);
  EXPECT_EQ(Workspace(second).data, data);
  EXPECT_EQ(Workspace(second).bytes, 512u);
}

TEST(HostWorkspace, RefusesPlansOfOtherMemory) {
  expect_error(Status::invalid_argument, {"H100", "512", "nearest: "},
               [] { HostWorkspace(plan_with_workspace(512, h100())); });
}

TEST(HostWorkspace, ThatCannotBeHadIsOutOfMemory) {
  expect_error(Status::out_of_memory, {"workspace = 4611686018427387904"},
               [] { HostWorkspace(plan_with_workspace(std::size_t{1} << 62, cpu(2))); });
}

}  // namespace
}  // namespace fattn
