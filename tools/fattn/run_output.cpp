// SPDX-License-Identifier: Apache-2.0
#include "run_output.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "arguments.hpp"
#include "attention_map.hpp"
#include "fattn/error.hpp"
#include "io/npy.hpp"
#include "io/png.hpp"
#include "io/safetensors.hpp"
#include "scaling.hpp"

namespace fattn::tool {

namespace {

using std::int64_t;

constexpr int kMostMaps = 6;
constexpr int kMostCells = 256;
constexpr double kMostMapFlops = 4e11;  // a few seconds
constexpr int64_t kLongest = 16384;

// Shapes as the API states them: lse has no head_dim, vectors have one extent.
std::vector<int64_t> shape_of(const verify::Tensor& tensor, const Problem& p) {
  const verify::Index4& e = tensor.extents();
  if (tensor.name() == "lse") return {p.batch, p.heads_q, p.seqlen_q};
  if (tensor.name() == "max_logit" || tensor.name() == "dsink") return {p.heads_q};
  return {e.begin(), e.end()};
}

// .npy has no bf16: fp32 holds the same values.
io::Array for_npy(const verify::Tensor& tensor, std::vector<int64_t> shape) {
  if (tensor.dtype() != DType::bf16) return array_of(tensor, std::move(shape));
  verify::Tensor wide(tensor.name(), DType::fp32, tensor.extents());
  wide.set_values(tensor.values());
  return array_of(wide, std::move(shape));
}

}  // namespace

RunOutput::RunOutput(std::filesystem::path folder, bool npy) : folder_(std::move(folder)), npy_(npy) {
  std::error_code error;
  if (std::filesystem::is_directory(folder_)) return;
  if (std::filesystem::exists(folder_)) {
    throw Error(Status::io_error, fmt::format("cannot write to {}: it is not a folder", folder_.string()));
  }
  made_ = std::filesystem::create_directory(folder_, error);
  if (!made_)
    throw Error(Status::io_error, fmt::format("cannot make folder {}: {}", folder_.string(), error.message()));
}

RunOutput::~RunOutput() {
  files_.clear();
  std::error_code error;
  if (made_) std::filesystem::remove(folder_, error);  // only an empty one goes
}

io::OutputFile& RunOutput::add(const std::string& name, const std::string& what) {
  files_.emplace_back(folder_ / name);
  what_.push_back(what);
  return files_.back();
}

void RunOutput::add_tensors(const std::vector<PassResult>& passes) {
  if (npy_) {
    for (const PassResult& pass : passes) {
      for (const verify::Tensor& tensor : pass.outputs) {
        const io::Array array = for_npy(tensor, shape_of(tensor, pass.plan.problem()));
        io::OutputFile& file = add(tensor.name() + ".npy", io::shape_text(array.shape));
        write_npy(file, array);
        file.finish();
      }
    }
    return;
  }
  std::map<std::string, io::Array> tensors;
  std::map<std::string, std::string> metadata = {{"fattn", version_text()}, {"commit", tool::commit()}};
  std::string names;
  for (const PassResult& pass : passes) {
    const std::string name(pass.name());
    metadata[name] = to_string(pass.plan.problem());
    metadata[name + "_kernel"] = pass.plan.kernel();
    for (const verify::Tensor& tensor : pass.outputs) {
      tensors.emplace(tensor.name(), array_of(tensor, shape_of(tensor, pass.plan.problem())));
      names += (names.empty() ? "" : ", ") + tensor.name();
    }
  }
  io::OutputFile& file = add("attention.safetensors", names);
  write_safetensors(file, tensors, metadata);
  file.finish();
}

void RunOutput::add_maps(const AttentionInput& input, const PassResult& forward, Progress& progress) {
  const Problem& p = forward.plan.problem();
  if (p.batch == 0 || p.seqlen_q == 0 || p.seqlen_k == 0) return;
  // head_dim and cells multiply-adds for each pair of one head.
  const double head_flops = flops(p) / static_cast<double>(p.batch * p.heads_q) *
                            static_cast<double>(p.head_dim + kMostCells) /
                            static_cast<double>(p.head_dim + head_dim_v(p));
  const auto affordable = static_cast<int64_t>(kMostMapFlops / std::max(head_flops, 1.0));
  const int64_t count = std::min({int64_t{kMostMaps}, p.heads_q, affordable});
  if (count == 0) return;
  verify::CaseData data = case_of(input, p, cpu(), 1);
  std::vector<AttentionMap> maps;
  for (int64_t i = 0; i < count; ++i) {
    progress.show(fmt::format("attention map {} of {}", i + 1, count));
    maps.push_back(attention_map(data, i * p.heads_q / count, kMostCells));
  }
  std::string heads;
  for (const AttentionMap& map : maps) heads += fmt::format("{}{}", heads.empty() ? "heads " : ", ", map.head);
  io::OutputFile& file = add("attention_maps.png", heads + " of the first sequence");
  write_png(file, draw(maps, p.seqlen_q, p.seqlen_k));
  file.finish();
}

void RunOutput::add_scaling(const Problem& forward, const Device& device, Progress& progress) {
  // The bias of a file has one size only.
  if (forward.score.bias || forward.seqlen_q != forward.seqlen_k || forward.seqlen_q == 0) return;
  const std::string lines = scaling_lines(
      measure_scaling(forward, device, std::clamp<int64_t>(4 * forward.seqlen_q, 1024, kLongest), progress));
  io::OutputFile& file = add("scaling.jsonl", "time and memory at growing lengths, beside standard attention");
  file.write(lines);
  file.finish();
}

std::vector<std::string> RunOutput::commit() {
  std::vector<std::string> written;
  for (io::OutputFile& file : files_) {
    file.commit();
    written.push_back(file.path().string());
  }
  made_ = false;
  return written;
}

std::string RunOutput::text() const {
  Table table({{"", Align::left}, {"", Align::left}});
  for (std::size_t i = 0; i < files_.size(); ++i) table.row({files_[i].path().string(), what_[i]});
  return table.text();
}

}  // namespace fattn::tool
