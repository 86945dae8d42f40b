// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "fattn/fattn.hpp"
#include "verify/case_line.hpp"
#include "verify/check.hpp"

namespace fattn {

// Fresh random data for a problem, with the forward's results when it is a backward; placed.
inline verify::CaseData case_data(const std::string& line, const Device& device) {
  const verify::Case one = verify::parse_case(line);
  verify::CaseData data(one.problem, device, one.data);
  if (one.problem.pass == Pass::backward) {
    Problem forward = one.problem;
    forward.pass = Pass::forward;
    forward.return_lse = true;
    forward.dlse = forward.dbias = forward.dsink = false;
    forward.strides.dout = forward.strides.dq = forward.strides.dk = forward.strides.dv = std::nullopt;
    verify::CaseOutputs outputs(forward, device);
    Buffers buffers = data.masters();
    outputs.attach(buffers);
    verify::run_plan(plan(forward, device, "reference_forward_fp32"), buffers);
    outputs.fetch();
    data.set_forward(outputs.tensor("o"), outputs.tensor("lse"));
  }
  data.place();
  return data;
}

// The outputs of one run of a row on placed data, byte for byte. Throws if the row writes outside its outputs or its
// workspace.
using OutputBytes = std::vector<std::vector<std::byte>>;
inline OutputBytes output_bytes(const verify::CaseData& placed, const std::string& row, const Device& device,
                                Executor* executor = nullptr) {
  verify::CaseOutputs outputs(placed.problem(), device);
  Buffers buffers = placed.placed();
  outputs.attach(buffers);
  verify::run_plan(plan(placed.problem(), device, row), buffers, 1, executor);
  outputs.fetch();
  if (const std::string damage = outputs.damage() + placed.damage(); !damage.empty()) {
    throw Error(Status::internal_error, damage);
  }
  OutputBytes bytes;
  for (const verify::Tensor& tensor : outputs.tensors()) bytes.push_back(tensor.bytes());
  return bytes;
}

inline std::string row_for(const std::string& target, const std::string& line) {
  return "cpu_" + target + (line.starts_with("bwd") ? "_backward" : "_forward");
}

// All with rows that run here, the fastest last; those that multiply bf16 in pairs only for bf16.
inline std::vector<std::string> targets(const std::string& line = " bf16") {
  std::vector<std::string> names = {"scalar"};
  if (cpu().avx2) names.emplace_back("avx2");
  if (cpu().avx512) names.emplace_back("avx512");
  if (line.find(" bf16") == line.npos) return names;
  names.emplace_back("amx_emulated");
  if (cpu().avx512_bf16) names.emplace_back("avx512_bf16");
  if (cpu().amx_bf16) names.emplace_back("amx");
  return names;
}

}  // namespace fattn
