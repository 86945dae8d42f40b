// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "core/accelerator.hpp"
#include "fattn/fattn.hpp"

// What the CUDA rows say without a GPU: plans for described devices, refusals, and an accelerator that is not there.
namespace fattn {
namespace {

Problem example(Pass pass) {
  return parse_problem(std::string(pass == Pass::forward ? "fwd" : "bwd") + " b2 hq4 hk2 sq300 sk400 d64 bf16");
}

std::string row(Pass pass) { return pass == Pass::forward ? "cuda_reference_forward" : "cuda_reference_backward"; }

std::string refusal(const Problem& problem, const Device& device) {
  try {
    plan(problem, device, row(problem.pass));
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::unsupported);
    return error.what();
  }
  return "";
}

bool compiled() { return accelerator::compiled(); }

TEST(CudaPlans, DescribedDeviceIsPlannedNotRun) {
  if (!compiled()) GTEST_SKIP() << "built without CUDA";
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    const Plan described = plan(example(pass), h100(), row(pass));
    EXPECT_EQ(described.kernel(), row(pass));
    EXPECT_GT(described.launch_shape().grid, 0);
    EXPECT_FALSE(described.explain().empty());
    try {
      run(described, {}, {});
      FAIL() << "a described device ran";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::device_not_present);
    }
  }
}

TEST(CudaPlans, OtherCapabilityIsNamed) {
  if (!compiled()) GTEST_SKIP() << "built without CUDA";
  const std::string reason = refusal(example(Pass::forward), a100());
  EXPECT_NE(reason.find("compute_capability = 80"), std::string::npos) << reason;
  EXPECT_NE(reason.find("90"), std::string::npos) << reason;
}

TEST(CudaPlans, RefusalsNameTheArgument) {
  if (!compiled()) GTEST_SKIP() << "built without CUDA";
  const auto expect = [](auto change, const char* word) {
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      Problem problem = example(pass);
      change(problem);
      const std::string reason = refusal(problem, h200());
      EXPECT_NE(reason.find(word), std::string::npos) << reason;
    }
  };
  expect([](Problem& p) { p.dropout = 0.1; }, "dropout = 0.1");
  expect([](Problem& p) { p.mask.documents = true; }, "documents");
  expect([](Problem& p) { p.mask.prefix = true; }, "prefix");
  expect([](Problem& p) { p.mask = block_sparse({64, 64, false, false}); }, "block_sparse");
  expect([](Problem& p) { p.dtype = DType::e4m3; }, "e4m3");
}

TEST(CudaPlans, OraclesAreChosenByNameOnly) {
  Problem problem = example(Pass::forward);
  problem.head_dim = 320;  // no other CUDA row has it
  try {
    plan(problem, h100());
    FAIL() << "an oracle was chosen silently";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::unsupported);
    EXPECT_NE(std::string(error.what()).find("cuda_reference_forward"), std::string::npos) << error.what();
  }
}

TEST(CudaPlans, WorkspaceIsLinear) {
  if (!compiled()) GTEST_SKIP() << "built without CUDA";
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    Problem problem = example(pass);
    const std::size_t once = plan(problem, h100(), row(pass)).workspace_bytes();
    problem.seqlen_q *= 10;
    problem.seqlen_k *= 10;
    const std::size_t tenfold = plan(problem, h100(), row(pass)).workspace_bytes();
    EXPECT_EQ(tenfold, 10 * once);
    EXPECT_LE(tenfold, std::size_t{2 * 8} * 2 * 4 * 3000);
  }
}

// A dense row would fill a tile with each head's few queries, and read the keys they share once for each head.
TEST(CudaPlans, FewQueriesLieSideBySide) {
  if (!compiled()) GTEST_SKIP() << "built without CUDA";
  const auto chosen = [](const char* problem) { return plan(parse_problem(problem), h200()).kernel(); };
  EXPECT_EQ(chosen("fwd b16 hq32 hk8 sq1 sk8192 d128 bf16"), "sm90_forward_bf16_d128_band_varlen");
  EXPECT_EQ(chosen("fwd b16 hq32 hk8 sq16 sk1000 d64 fp16 causal"), "sm90_forward_fp16_d64_band_varlen");
  EXPECT_EQ(chosen("fwd b16 hq32 hk8 sq1 sk8192 d128 bf16 batch_invariant"), "sm90_forward_bf16_d128_band");
  EXPECT_EQ(chosen("fwd b16 hq32 hk32 sq1 sk8192 d128 bf16"), "sm90_forward_bf16_d128_band");
  EXPECT_EQ(chosen("fwd b16 hq32 hk8 sq512 sk8192 d128 bf16"), "sm90_forward_bf16_d128_band");
}

// A list of tiles would tell nothing, and making it is a kernel more.
TEST(CudaPlans, PackedSequencesOfOneLengthNeedNoList) {
  if (!compiled()) GTEST_SKIP() << "built without CUDA";
  const auto workspace = [](const char* problem) { return plan(parse_problem(problem), h200()).workspace_bytes(); };
  const std::size_t even = workspace("fwd b16 hq16 hk16 sq1024 sk1024 d128 tq16384 tk16384 bf16 causal");
  EXPECT_EQ(even, workspace("fwd b1 hq16 hk16 sq1024 sk1024 d128 tq1024 tk1024 bf16 causal"));
  EXPECT_GT(workspace("fwd b16 hq16 hk16 sq1024 sk1024 d128 tq16383 tk16383 bf16 causal"), even);
  EXPECT_GT(workspace("fwd b16 hq16 hk16 sq1024 sk1024 d128 tq16384 tk16384 seqused=k bf16 causal"), even);
}

TEST(Accelerator, HostMemoryIsNeverDeviceMemory) {
  int value = 0;
  const auto where = accelerator::locate(&value);
  EXPECT_TRUE(where.space == accelerator::Space::host || where.space == accelerator::Space::unknown);
  EXPECT_EQ(accelerator::devices().empty(), devices().size() == 1);
}

TEST(Accelerator, MissingGpuIsAnError) {
  if (!accelerator::devices().empty()) GTEST_SKIP() << "this machine has a GPU";
  try {
    cuda();
    FAIL() << "a GPU that is not here";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::device_error);
  }
}

}  // namespace
}  // namespace fattn
