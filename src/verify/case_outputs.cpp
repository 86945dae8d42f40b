// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "fattn/error.hpp"
#include "verify/case_data.hpp"

namespace fattn::verify {

using std::int64_t;

CaseOutputs::CaseOutputs(const Problem& p, const Device& device) : device_(device) {
  const auto operand = [&](Operand which, void (*attach_to)(Buffers&, void*)) {
    add(Tensor(std::string(to_string(which)), output_dtype(p), extents_of(p, which), strides_of(p, which)), attach_to,
        p.alignment);
  };
  if (p.pass == Pass::backward) {
    operand(Operand::dq, [](Buffers& b, void* m) { b.dq = m; });
    operand(Operand::dk, [](Buffers& b, void* m) { b.dk = m; });
    operand(Operand::dv, [](Buffers& b, void* m) { b.dv = m; });
    if (p.dbias) {
      add(
          Tensor("dbias", DType::fp32, bias_extents(p)), [](Buffers& b, void* m) { b.dbias = static_cast<float*>(m); },
          p.alignment);
    }
    if (p.dsink) {
      add(
          Tensor("dsink", DType::fp32, {1, 1, 1, p.heads_q}),
          [](Buffers& b, void* m) { b.dsink = static_cast<float*>(m); }, p.alignment);
    }
    return;
  }
  operand(Operand::o, [](Buffers& b, void* m) { b.o = m; });
  if (p.return_lse) {
    add(
        Tensor("lse", DType::fp32, lse_extents(p)), [](Buffers& b, void* m) { b.lse = static_cast<float*>(m); },
        p.alignment);
  }
  if (p.return_max_logit) {
    add(
        Tensor("max_logit", DType::fp32, {1, 1, 1, p.heads_q}),
        [](Buffers& b, void* m) { b.max_logit = static_cast<float*>(m); }, p.alignment);
  }
}

void CaseOutputs::add(Tensor tensor, void (*attach_to)(Buffers&, void*), int64_t alignment) {
  alignment = std::max(alignment, size_of(tensor.dtype()));
  placed_.push_back(std::make_unique<PlacedMemory>(device_, tensor.bytes().size(), alignment));
  placed_.back()->fill(0xff);
  tensors_.push_back(std::move(tensor));
  attach_.push_back(attach_to);
}

void CaseOutputs::attach(Buffers& buffers) const {
  for (std::size_t i = 0; i < tensors_.size(); ++i) attach_[i](buffers, placed_[i]->data());
}

void CaseOutputs::fetch() {
  for (std::size_t i = 0; i < tensors_.size(); ++i) tensors_[i].bytes() = placed_[i]->download();
}

std::string CaseOutputs::damage() const {
  std::string names;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (!placed_[i]->guards_intact()) names += fmt::format("memory around {} was written; ", tensors_[i].name());
    if (!tensors_[i].gaps_untouched())
      names += fmt::format("gaps between the rows of {} were written; ", tensors_[i].name());
  }
  return names;
}

const Tensor& CaseOutputs::tensor(std::string_view name) const {
  for (const Tensor& tensor : tensors_) {
    if (tensor.name() == name) return tensor;
  }
  throw Error(Status::invalid_argument, fmt::format("output = {} is not one of this case", name));
}

}  // namespace fattn::verify
