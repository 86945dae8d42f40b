// SPDX-License-Identifier: Apache-2.0
#include "kernels/rows.hpp"

namespace fattn {
namespace {

class CudaRows : public Rows {};
// A build without CUDA has none of these rows.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(CudaRows);

TEST_P(CudaRows, AgreeWithTheOracle) {
  if (devices().size() < 2) GTEST_SKIP() << "NO GPU: " << GetParam().row << " did not run";
  agree_with_the_oracle(cuda());
}

INSTANTIATE_TEST_SUITE_P(Kernels, CudaRows, testing::ValuesIn(rows_of(DeviceKind::cuda)), name_of);

// Says it where no row was compiled either, so that no summary hides it.
TEST(CudaRowsOfThisBuild, AreCompiled) {
  if (rows_of(DeviceKind::cuda).empty()) GTEST_SKIP() << "NO CUDA in this build: no CUDA row was compiled";
}

}  // namespace
}  // namespace fattn
