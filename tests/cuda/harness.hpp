// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "fattn/fattn.hpp"
#include "verify/case_data.hpp"

// What the GPU tests share. Data and guarded memory come from src/verify.
namespace fattn::test {

#define FATTN_NEEDS_GPU() \
  if (fattn::devices().size() < 2) GTEST_SKIP() << "NO GPU: this test needs a CUDA device and did not run"

#define FATTN_CUDA_OK(call) ASSERT_EQ(call, cudaSuccess) << cudaGetErrorString(cudaGetLastError())

inline void must(cudaError_t error) {
  if (error != cudaSuccess) throw Error(Status::device_error, cudaGetErrorString(error));
}

// Zero-filled, guarded memory for one run in flight.
class GuardedWorkspace {
 public:
  explicit GuardedWorkspace(const Plan& plan)
      : bytes_(plan.workspace_bytes()),
        memory_(plan.device(), bytes_, static_cast<std::int64_t>(Plan::workspace_alignment())) {
    memory_.fill(0);
  }
  operator Workspace() const { return {memory_.data(), bytes_}; }
  bool guards_intact() const { return memory_.guards_intact(); }

 private:
  std::size_t bytes_;
  verify::PlacedMemory memory_;
};

// Everything one run needs, placed on the plan's device.
class Placed {
 public:
  explicit Placed(const Plan& plan, const verify::DataOptions& options = {})
      : data(plan.problem(), plan.device(), options), outputs(plan.problem(), plan.device()), workspace(plan) {
    if (plan.problem().pass == Pass::backward) add_forward(options);
    place();
  }
  void place() {
    data.place();
    buffers = data.placed();
    outputs.attach(buffers);
  }

  verify::CaseData data;
  verify::CaseOutputs outputs;
  GuardedWorkspace workspace;
  Buffers buffers;

 private:
  // o and lse of the host oracle, which the backward rows read.
  void add_forward(const verify::DataOptions& options) {
    Problem forward = data.problem();
    forward.pass = Pass::forward;
    forward.return_lse = true;
    forward.dlse = forward.dbias = forward.dsink = false;
    forward.strides.dout = forward.strides.dq = forward.strides.dk = forward.strides.dv = std::nullopt;
    const Plan oracle = plan(forward, cpu(), "reference_forward_fp64");
    Placed host(oracle, options);
    run(oracle, host.buffers, host.workspace);
    host.outputs.fetch();
    data.set_forward(host.outputs.tensor("o"), host.outputs.tensor("lse"));
  }
};

// The outputs' bytes, after everything on the device is done; fails the test where memory outside them changed.
inline std::vector<std::vector<std::byte>> finish(Placed& placed) {
  if (placed.data.device().kind == DeviceKind::cuda) must(cudaDeviceSynchronize());
  placed.outputs.fetch();
  EXPECT_EQ(placed.outputs.damage() + placed.data.damage(), "") << to_string(placed.data.problem());
  EXPECT_TRUE(placed.workspace.guards_intact()) << to_string(placed.data.problem());
  std::vector<std::vector<std::byte>> bits;
  for (const verify::Tensor& tensor : placed.outputs.tensors()) bits.push_back(tensor.bytes());
  return bits;
}

inline std::vector<std::vector<std::byte>> bits_of_one_run(const Plan& plan) {
  Placed placed(plan);
  run(plan, placed.buffers, placed.workspace);
  return finish(placed);
}

}  // namespace fattn::test
