// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "attention_input.hpp"
#include "io/file.hpp"
#include "run_pass.hpp"
#include "text.hpp"

namespace fattn::tool {

// The files of one run: all of them are complete on the disk before the first gets its name; else none appears, and a
// folder made for them goes again.
class RunOutput {
 public:
  RunOutput(std::filesystem::path folder, bool npy);
  ~RunOutput();
  RunOutput(const RunOutput&) = delete;
  RunOutput& operator=(const RunOutput&) = delete;

  void add_tensors(const std::vector<PassResult>& passes);
  void add_maps(const AttentionInput& input, const PassResult& forward, Progress& progress);
  void add_scaling(const Problem& forward, const Device& device, Progress& progress);
  std::vector<std::string> commit();  // returns the paths
  std::string text() const;           // paths, and what is in each

 private:
  io::OutputFile& add(const std::string& name, const std::string& what);

  std::filesystem::path folder_;
  bool npy_;
  bool made_ = false;
  std::vector<io::OutputFile> files_;
  std::vector<std::string> what_;
};

}  // namespace fattn::tool
