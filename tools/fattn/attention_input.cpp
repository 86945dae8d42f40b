// SPDX-License-Identifier: Apache-2.0
#include "attention_input.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "arguments.hpp"
#include "fattn/error.hpp"
#include "io/file.hpp"
#include "io/npy.hpp"
#include "io/safetensors.hpp"

namespace fattn::tool {

namespace {

using std::int64_t;

constexpr std::array<const char*, 8> kKnown = {"q", "k", "v", "dout", "dlse", "bias", "alibi_slopes", "sinks"};

bool is_known(const std::string& name) { return std::find(kKnown.begin(), kKnown.end(), name) != kKnown.end(); }

bool begins_like_npy(const io::Source& source) {
  std::array<std::byte, 6> start = {};
  if (source.size() < start.size()) return false;
  source.read(0, start);
  return std::memcmp(start.data(), "\x93NUMPY", start.size()) == 0;
}

// The same bytes as a tensor that knows how to turn its elements into doubles.
verify::Tensor as_tensor(const std::string& name, const io::Array& array) {
  const int64_t count = static_cast<int64_t>(array.data.size()) / io::size_of(array.element);
  const int64_t inner = array.shape.empty() ? 1 : std::max<int64_t>(1, array.shape.back());
  verify::Tensor tensor(name, *io::dtype_of(array.element), {1, 1, count / inner, inner});
  tensor.bytes() = array.data;
  return tensor;
}

io::Array converted(const std::string& name, const io::Array& array, DType dtype) {
  if (io::dtype_of(array.element) == dtype) return array;
  const verify::Tensor from = as_tensor(name, array);
  verify::Tensor to(name, dtype, from.extents());
  std::vector<double> row(static_cast<std::size_t>(from.row_elements()));
  for (int64_t r = 0; r < from.rows(); ++r) {
    from.get_row(r, row.data());
    to.set_row(r, row.data());
  }
  return {io::element_of(dtype), array.shape, to.bytes()};
}

void check_values(const std::string& name, const io::Array& array) {
  const verify::Tensor tensor = as_tensor(name, array);
  std::vector<double> row(static_cast<std::size_t>(tensor.row_elements()));
  for (int64_t r = 0; r < tensor.rows(); ++r) {
    tensor.get_row(r, row.data());
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (std::isfinite(row[i])) continue;
      refuse(fmt::format("tensor {} of shape {}: element {} is {}, not finite", name, io::shape_text(array.shape),
                         r * tensor.row_elements() + static_cast<int64_t>(i), row[i]));
    }
  }
}

void check_shapes(const AttentionInput& input) {
  for (const char* name : {"q", "k", "v"}) {
    const io::Array& array = input.tensors.at(name);
    if (array.shape.size() != 4) {
      refuse(fmt::format("tensor {} has shape {}; [batch, seqlen, heads, head_dim] is needed", name,
                         io::shape_text(array.shape)));
    }
    if (array.element != input.tensors.at("q").element) {
      refuse(fmt::format("tensor {} is {} and q is {}; all three must have one dtype (--dtype converts)", name,
                         io::safetensors_name(array.element), io::safetensors_name(input.tensors.at("q").element)));
    }
  }
  const std::vector<int64_t>&q = input.tensors.at("q").shape, &k = input.tensors.at("k").shape,
        &v = input.tensors.at("v").shape;
  const auto mismatch = [](const char* what, const char* a, const std::vector<int64_t>& one, const char* b,
                           const std::vector<int64_t>& other) {
    refuse(fmt::format("{} of {} {} and {} {} differ", what, a, io::shape_text(one), b, io::shape_text(other)));
  };
  if (q[0] != k[0]) mismatch("batch", "q", q, "k", k);
  if (k[0] != v[0]) mismatch("batch", "k", k, "v", v);
  if (k[1] != v[1]) mismatch("seqlen", "k", k, "v", v);
  if (k[2] != v[2]) mismatch("heads", "k", k, "v", v);
  if (q[3] != k[3]) mismatch("head_dim", "q", q, "k", k);
}

void add_tensor(AttentionInput& input, const std::string& name, io::Array array) {
  if (!io::dtype_of(array.element) || array.element == io::Element::f8_e4m3) {
    refuse(fmt::format("tensor {} is {}; F64, F32, F16 or BF16 is needed", name, io::safetensors_name(array.element)));
  }
  check_values(name, array);
  input.tensors.emplace(name, std::move(array));
}

// Shapes that differ only in leading extents of 1 are the same.
std::vector<int64_t> trimmed(std::vector<int64_t> shape) {
  const auto first = std::find_if(shape.begin(), shape.end(), [](int64_t extent) { return extent != 1; });
  shape.erase(shape.begin(), first);
  return shape;
}

void fill(verify::CaseData& data, const std::string& name, const io::Array& array) {
  verify::Tensor& tensor = data.tensor(name);
  const std::vector<int64_t> wanted(tensor.extents().begin(), tensor.extents().end());
  std::vector<int64_t> shape = wanted;
  // lse-like tensors are [batch, heads, seqlen] and carry a last extent of 1 inside.
  if (name == "dlse") shape.pop_back();
  if (trimmed(array.shape) != trimmed(shape)) {
    refuse(fmt::format("tensor {} has shape {}; this problem needs {}", name, io::shape_text(array.shape),
                       io::shape_text(trimmed(shape))));
  }
  tensor.bytes() = converted(name, array, tensor.dtype()).data;
}

}  // namespace

AttentionInput read_input(const std::vector<std::string>& files, std::optional<DType> dtype) {
  AttentionInput input;
  const io::FileSource first(files.front());
  input.npy = begins_like_npy(first);
  if (input.npy) {
    if (files.size() != 3)
      refuse(
          fmt::format("{} .npy file{} given; three are needed: q, k, v", files.size(), files.size() == 1 ? "" : "s"));
    for (std::size_t i = 0; i < 3; ++i) add_tensor(input, kKnown[i], io::read_npy(io::FileSource(files[i])));
  } else {
    if (files.size() != 1)
      refuse(fmt::format("{} files given, the first is no .npy file; one .safetensors file is needed", files.size()));
    const io::SafetensorsReader reader(first);
    input.metadata = reader.header().metadata;
    for (const io::TensorInfo& info : reader.header().tensors) {
      if (is_known(info.name)) {
        add_tensor(input, info.name, reader.read(info));
      } else {
        input.ignored.push_back(info.name);
      }
    }
    for (const char* name : {"q", "k", "v"}) {
      if (input.tensors.count(name) == 0) refuse(fmt::format("{}: there is no tensor \"{}\"", files.front(), name));
    }
  }
  if (dtype) {
    for (const char* name : {"q", "k", "v", "dout"}) {
      const auto found = input.tensors.find(name);
      if (found != input.tensors.end()) found->second = converted(name, found->second, *dtype);
    }
    // Rounding to a shorter format may overflow.
    for (const auto& [name, array] : input.tensors) check_values(name, array);
  }
  check_shapes(input);
  return input;
}

Problem problem_of(const AttentionInput& input, Pass pass, const std::string& words) {
  const std::vector<int64_t>&q = input.tensors.at("q").shape, &k = input.tensors.at("k").shape,
        &v = input.tensors.at("v").shape;
  const DType dtype = *io::dtype_of(input.tensors.at("q").element);
  std::string text = fmt::format("{} b{} hq{} hk{} sq{} sk{} d{} {}", pass == Pass::backward ? "bwd" : "fwd", q[0],
                                 q[2], k[2], q[1], k[1], q[3], to_string(dtype));
  if (v[3] != q[3]) text += fmt::format(" dv{}", v[3]);
  if (pass == Pass::forward) text += " lse";
  Problem problem = parse_problem(text + " " + words);
  const bool same = problem.batch == q[0] && problem.heads_q == q[2] && problem.heads_kv == k[2] &&
                    problem.seqlen_q == q[1] && problem.seqlen_k == k[1] && problem.head_dim == q[3] &&
                    head_dim_v(problem) == v[3] && problem.dtype == dtype;
  if (!same || problem.total_q || problem.total_k || problem.seqused_q || problem.seqused_k ||
      problem.strides != Layouts{}) {
    refuse(fmt::format("{}: shapes, layout and dtype come from the file", io::printable(words)));
  }
  const Mask& mask = problem.mask;
  if (mask.documents || mask.prefix || mask.block_sparse || problem.dropout > 0 ||
      problem.descale.kind != DescaleKind::none) {
    refuse(
        fmt::format("{}: documents, prefix, block_sparse, dropout and descale read arrays that a file of tensors "
                    "does not have; nearest: masks of intervals, such as causal or window",
                    io::printable(words)));
  }
  if (pass == Pass::backward) {  // every gradient there is
    problem.dbias = problem.score.bias.has_value();
    problem.dsink = problem.sinks;
    problem.dlse = input.tensors.count("dlse") > 0;
    validate(problem);
  }
  return problem;
}

verify::CaseData case_of(const AttentionInput& input, const Problem& problem, const Device& device,
                         std::uint64_t seed) {
  verify::DataOptions options;
  options.seed = seed;
  verify::CaseData data(problem, device, options);
  const bool backward = problem.pass == Pass::backward;
  const auto use = [&](const char* name, bool needed, bool drawn_otherwise) {
    if (!needed) return;
    const auto found = input.tensors.find(name);
    if (found != input.tensors.end()) return fill(data, name, found->second);
    if (!drawn_otherwise) refuse(fmt::format("the problem needs {}, and the file has no such tensor", name));
  };
  for (const char* name : {"q", "k", "v"}) use(name, true, false);
  use("dout", backward, true);
  use("dlse", problem.dlse, false);
  use("bias", problem.score.bias.has_value(), false);
  use("alibi_slopes", problem.score.alibi != Alibi::none, false);
  use("sinks", problem.sinks, false);
  return data;
}

io::Array array_of(const verify::Tensor& tensor, std::vector<int64_t> shape) {
  return {io::element_of(tensor.dtype()), std::move(shape), tensor.bytes()};
}

}  // namespace fattn::tool
