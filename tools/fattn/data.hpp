// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fattn/attention.hpp"
#include "verify/case_data.hpp"

// The buffers of one run in the memory of its device.
namespace fattn::tool {

// Aligned to 256 bytes, zero-filled.
class DeviceMemory {
 public:
  DeviceMemory(const Device& device, std::size_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  void upload(const void* from);
  void download(void* to) const;

 private:
  DeviceKind kind_;
  int index_;
  std::size_t bytes_;
  void* data_ = nullptr;
};

// Inputs copied from the masters of a case, outputs and workspace of a plan.
class DeviceData {
 public:
  DeviceData(const Plan& plan, verify::CaseData& inputs);

  void run(Stream stream = {}) const { fattn::run(plan_, buffers_, workspace_, stream); }
  void run_and_wait() const;
  verify::Tensor fetch(const std::string& output) const;  // "o", "lse", "max_logit", "dq", ...
  const std::vector<std::string>& outputs() const { return output_names_; }
  std::size_t bytes() const;  // of everything here

 private:
  void* add(std::size_t bytes, const void* from);

  Plan plan_;
  Buffers buffers_;
  Workspace workspace_;
  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  struct Output {
    verify::Tensor shape;  // name, dtype and layout
    const DeviceMemory* memory;
  };
  std::map<std::string, Output> outputs_;
  std::vector<std::string> output_names_;
};

// FLOPs of the sequences as long as they are, not as the problem says they may be.
double exact_flops(const verify::CaseData& inputs);

// Computes o and lse for the masters of a backward case, by the fastest row there is.
void fill_forward(verify::CaseData& inputs);

}  // namespace fattn::tool
