// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include "arguments.hpp"

namespace fattn::tool {

void add_cases(CLI::App& command, std::vector<std::string>& cases) {
  command.add_option("cases", cases, "Problems in words, or files with one a line")->required();
}

void add_device(CLI::App& command, std::string& device) {
  command.add_option("--device", device, "cpu, cpu:THREADS, cuda or cuda:N; default: the GPU, or the CPU");
}

void add_rows(CLI::App& command, std::vector<std::string>& kernels) {
  command.add_option("--kernel", kernels, "Only these rows, or rows with a tile (row@192x96)")->delimiter(',');
}

void add_timing(CLI::App& command, int& samples, std::uint64_t& seed) {
  command.add_option("--samples", samples, "Bursts for each; the median counts")->capture_default_str();
  command.add_option("--seed", seed, "Of the data and of the order")->capture_default_str();
}

void add_json(CLI::App& command, bool& json, const std::string& what) { command.add_flag("--json", json, what); }

void add_tensors(CLI::App& command, TensorOptions& tensors) {
  command
      .add_option("files", tensors.files,
                  "FILE.safetensors with tensors q, k, v, or Q.npy K.npy V.npy; each "
                  "[batch, seqlen, heads, head_dim]")
      ->required();
  command.add_flag("--causal", tensors.causal, "Mask: keys up to the query, aligned at the last ones");
  command.add_option("--mask", tensors.mask, "More words of the problem, such as \"window=1024,0 softcap=30\"");
  command.add_option("--dtype", tensors.dtype, "Round the inputs to fp32, bf16 or fp16 first");
}

AttentionInput TensorOptions::read() const { return read_input(files, dtype_argument(dtype)); }

}  // namespace fattn::tool
