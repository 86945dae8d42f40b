// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "fattn/fattn.hpp"
#include "verify/case_data.hpp"
#include "verify/device_memory.hpp"

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

  // Overwrites this case's placed inputs with another's of the same problem; data then no longer tells what is placed.
  void copy_inputs_from(const Placed& other) {
    const Buffers &to = buffers, &from = other.buffers;
    const Problem& p = data.problem();
    const auto copy = [](const void* target, const void* source, std::size_t bytes) {
      if (target != nullptr) must(cudaMemcpy(const_cast<void*>(target), source, bytes, cudaMemcpyDeviceToDevice));
    };
    const auto tensor = [&](const char* name, const void* target, const void* source) {
      copy(target, source, data.tensor(name).bytes().size());
    };
    tensor("q", to.q, from.q), tensor("k", to.k, from.k), tensor("v", to.v, from.v);
    if (p.pass == Pass::backward) {
      tensor("dout", to.dout, from.dout), tensor("o", to.o, from.o), tensor("lse", to.lse, from.lse);
    }
    const std::size_t one = sizeof(std::int32_t), lengths = static_cast<std::size_t>(p.batch) * one;
    copy(to.cu_seqlens_q, from.cu_seqlens_q, lengths + one);
    copy(to.cu_seqlens_k, from.cu_seqlens_k, lengths + one);
    copy(to.seqused_q, from.seqused_q, lengths);
    copy(to.seqused_k, from.seqused_k, lengths);
    must(cudaDeviceSynchronize());  // copies inside a device do not wait, nor do other streams wait for them
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
  const Device& device = placed.data.device();
  if (device.kind == DeviceKind::cuda) verify::device_memory::synchronize(device.index);
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
