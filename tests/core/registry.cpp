// SPDX-License-Identifier: Apache-2.0
#include "core/registry.hpp"

#include <gtest/gtest.h>

#include <set>

#include "core/accelerator.hpp"

namespace fattn {
namespace {

TEST(Registry, RowsAreWhatTheirNamesSay) {
  std::set<std::string_view> names;
  ASSERT_FALSE(rows().empty());
  for (const Row& row : rows()) {
    SCOPED_TRACE(row.name);
    EXPECT_TRUE(names.insert(row.name).second) << "twice in the table";
    if (row.kernel == nullptr) continue;
    EXPECT_EQ(row.kernel->name, row.name);
    EXPECT_NE(row.kernel->decline, nullptr);
    EXPECT_NE(row.kernel->prepare, nullptr);
    EXPECT_NE(row.kernel->run, nullptr);
    // The name alone must say the same: it is all that builds without the row have.
    EXPECT_EQ(pass_of(Row{row.name, nullptr}), row.kernel->pass);
    EXPECT_EQ(device_of(Row{row.name, nullptr}), row.kernel->device);
    const bool oracle = row.name.find("reference") != row.name.npos, emulation = row.name.find("emul") != row.name.npos;
    EXPECT_EQ(row.kernel->by_name_only, oracle || emulation);
  }
}

TEST(Registry, KernelsListsEveryRow) {
  const std::vector<KernelInfo> all = kernels();
  ASSERT_EQ(all.size(), rows().size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].name, rows()[i].name);
    EXPECT_EQ(all[i].compiled, rows()[i].kernel != nullptr);
    const bool cpu_row = all[i].device == DeviceKind::cpu;
    EXPECT_TRUE(!cpu_row || all[i].compiled) << all[i].name;
    EXPECT_TRUE(cpu_row || accelerator::compiled() || !all[i].compiled) << all[i].name;
  }
}

}  // namespace
}  // namespace fattn
