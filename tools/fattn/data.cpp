// SPDX-License-Identifier: Apache-2.0
#include "data.hpp"

#include <cstring>
#include <new>

#include "fattn/error.hpp"
#include "verify/device_memory.hpp"

namespace fattn::tool {

namespace {

constexpr std::align_val_t kAlignment{256};
static_assert(std::size_t{256} % Plan::workspace_alignment() == 0, "the workspace comes from here too");

// The forward problem whose results a backward problem reads.
Problem forward_of(const Problem& backward) {
  Problem forward = backward;
  forward.pass = Pass::forward;
  forward.return_lse = true;
  forward.dlse = forward.dbias = forward.dsink = false;
  forward.strides.dout = forward.strides.dq = forward.strides.dk = forward.strides.dv = std::nullopt;
  return forward;
}

}  // namespace

DeviceMemory::DeviceMemory(const Device& device, std::size_t bytes)
    : kind_(device.kind), index_(device.index), bytes_(bytes) {
  if (kind_ == DeviceKind::cuda) {
    data_ = verify::device_memory::allocate(index_, bytes_);
    if (bytes_ > 0) verify::device_memory::fill(index_, data_, 0, bytes_);
  } else {
    data_ = ::operator new(bytes_, kAlignment);
    std::memset(data_, 0, bytes_);
  }
}

DeviceMemory::~DeviceMemory() {
  if (kind_ == DeviceKind::cuda) {
    verify::device_memory::release(index_, data_);
  } else {
    ::operator delete(data_, kAlignment);
  }
}

void DeviceMemory::upload(const void* from) {
  if (bytes_ == 0) return;
  if (kind_ == DeviceKind::cuda) return verify::device_memory::upload(index_, data_, from, bytes_);
  std::memcpy(data_, from, bytes_);
}

void DeviceMemory::download(void* to) const {
  if (bytes_ == 0) return;
  if (kind_ == DeviceKind::cuda) return verify::device_memory::download(index_, to, data_, bytes_);
  std::memcpy(to, data_, bytes_);
}

DeviceData::DeviceData(const Plan& plan, verify::CaseData& inputs) : plan_(plan) {
  const Problem& problem = plan_.problem();
  const Buffers host = inputs.masters();
  const auto tensor = [&](const char* name, auto field) {
    if (host.*field == nullptr) return;
    using Pointer = std::remove_reference_t<decltype(buffers_.*field)>;
    buffers_.*field = static_cast<Pointer>(add(inputs.tensor(name).bytes().size(), host.*field));
  };
  tensor("q", &Buffers::q);
  tensor("k", &Buffers::k);
  tensor("v", &Buffers::v);
  tensor("o", &Buffers::o);
  tensor("lse", &Buffers::lse);
  tensor("dout", &Buffers::dout);
  tensor("dlse", &Buffers::dlse);
  tensor("bias", &Buffers::bias);
  tensor("alibi_slopes", &Buffers::alibi_slopes);
  tensor("sinks", &Buffers::sinks);
  tensor("q_descale", &Buffers::q_descale);
  tensor("k_descale", &Buffers::k_descale);
  tensor("v_descale", &Buffers::v_descale);
  const auto array = [&](const char* name, auto field) {
    if (host.*field == nullptr) return;
    using Pointer = std::remove_reference_t<decltype(buffers_.*field)>;
    buffers_.*field = static_cast<Pointer>(add(inputs.array(name).size(), host.*field));
  };
  array("cu_seqlens of queries", &Buffers::cu_seqlens_q);
  array("cu_seqlens of keys", &Buffers::cu_seqlens_k);
  array("seqused of queries", &Buffers::seqused_q);
  array("seqused of keys", &Buffers::seqused_k);
  array("document_q", &Buffers::document_q);
  array("document_k", &Buffers::document_k);
  array("prefix", &Buffers::prefix);
  array("block_offsets", &Buffers::block_offsets);
  array("block_columns", &Buffers::block_columns);
  array("block_bits", &Buffers::block_bits);
  array("block_mask", &Buffers::block_mask);
  array("dropout_seed", &Buffers::dropout_seed);
  array("dropout_offset", &Buffers::dropout_offset);

  // The layouts of the outputs come from the same place as those of every test.
  const verify::CaseOutputs layouts(problem, cpu(1));
  const auto output = [&](const char* name, auto field) {
    for (const verify::Tensor& each : layouts.tensors()) {
      if (each.name() != name) continue;
      using Pointer = std::remove_reference_t<decltype(buffers_.*field)>;
      buffers_.*field = static_cast<Pointer>(add(each.bytes().size(), nullptr));
      outputs_.emplace(name, Output{each, memory_.back().get()});
      output_names_.emplace_back(name);
    }
  };
  output("o", &Buffers::o);
  output("lse", &Buffers::lse);
  output("max_logit", &Buffers::max_logit);
  output("dq", &Buffers::dq);
  output("dk", &Buffers::dk);
  output("dv", &Buffers::dv);
  output("dbias", &Buffers::dbias);
  output("dsink", &Buffers::dsink);
  workspace_ = {add(plan_.workspace_bytes(), nullptr), plan_.workspace_bytes()};
}

void* DeviceData::add(std::size_t bytes, const void* from) {
  memory_.push_back(std::make_unique<DeviceMemory>(plan_.device(), bytes));
  if (from != nullptr) memory_.back()->upload(from);
  return memory_.back()->data();
}

void DeviceData::run_and_wait() const {
  run();
  if (plan_.device().kind == DeviceKind::cuda) verify::device_memory::synchronize(plan_.device().index);
}

verify::Tensor DeviceData::fetch(const std::string& output) const {
  const Output& found = outputs_.at(output);
  verify::Tensor tensor = found.shape;
  found.memory->download(tensor.bytes().data());
  return tensor;
}

std::size_t DeviceData::bytes() const {
  std::size_t total = 0;
  for (const auto& each : memory_) total += each->bytes();
  return total;
}

double exact_flops(const verify::CaseData& inputs) {
  double total = 0;
  for (std::int64_t b = 0; b < inputs.problem().batch; ++b) {
    Problem one = inputs.problem();
    one.batch = 1;
    one.total_q = one.total_k = std::nullopt;
    one.seqused_q = one.seqused_k = false;
    one.strides = {};
    one.seqlen_q = inputs.length_q(b);
    one.seqlen_k = inputs.length_k(b);
    const double pairs = visible_pairs(one);
    if (pairs > 0) total += flops(one) / pairs * inputs.kept_pairs(b);
  }
  return total;
}

void fill_forward(verify::CaseData& inputs) {
  const Problem forward = forward_of(inputs.problem());
  const auto compute = [&](const Device& device, std::string_view kernel) {
    verify::CaseData data(forward, device, inputs.options());
    const DeviceData run(plan(forward, device, kernel), data);
    run.run_and_wait();
    inputs.set_forward(run.fetch("o"), run.fetch("lse"));
  };
  const std::pair<Device, const char*> choices[] = {
      {inputs.device(), ""}, {cpu(), ""}, {cpu(), "reference_forward_fp32"}};
  for (const auto& [device, kernel] : choices) {
    try {
      return compute(device, kernel);
    } catch (const Error& error) {
      if (error.status() != Status::unsupported || kernel == std::string_view("reference_forward_fp32")) throw;
    }
  }
}

}  // namespace fattn::tool
