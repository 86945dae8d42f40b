// SPDX-License-Identifier: Apache-2.0
#include "kernels/rows.hpp"

namespace fattn {
namespace {

class CpuRows : public Rows {};

TEST_P(CpuRows, AgreeWithTheOracle) { agree_with_the_oracle(cpu()); }

INSTANTIATE_TEST_SUITE_P(Kernels, CpuRows, testing::ValuesIn(rows_of(DeviceKind::cpu)), name_of);

}  // namespace
}  // namespace fattn
