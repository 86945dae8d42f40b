// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <vector>

#include "core/accelerator.hpp"
#include "core/blocks.hpp"
#include "core/extents.hpp"
#include "core/kernel.hpp"
#include "core/lengths.hpp"
#include "core/message.hpp"
#include "core/overlap.hpp"

namespace fattn {

Executor::~Executor() = default;

namespace {

using accelerator::Space;
using std::int64_t;

// One pointer of Buffers and what the problem says about it.
struct Entry {
  const char* name;
  const void* pointer;
  bool needed;        // the problem has it and it is not empty
  bool out_of_place;  // given, this pass would take part in it, but the problem does not speak of it
  int64_t alignment;
};

const char* name_of(Space space) {
  switch (space) {
    case Space::host: return "host";
    case Space::device: return "device";
    case Space::managed: return "managed";
    case Space::unknown: break;
  }
  return "unknown";
}

void check_place(const char* name, const void* pointer, const Device& device) {
  const accelerator::Where where = accelerator::locate(pointer);
  if (device.kind == DeviceKind::cpu) {
    require(where.space != Space::device, "{} = {} is memory of CUDA device {}; nearest: host memory for a cpu plan",
            name, pointer, where.device);
    return;
  }
  require(where.space == Space::device || where.space == Space::managed,
          "{} = {} is {} memory; nearest: memory of CUDA device {}", name, pointer, name_of(where.space), device.index);
  require(where.space == Space::managed || where.device == device.index,
          "{} = {} is memory of CUDA device {}; nearest: memory of CUDA device {}", name, pointer, where.device,
          device.index);
}

void check(const Entry& entry, const Device& device) {
  const auto& [name, pointer, needed, out_of_place, alignment] = entry;
  require(pointer != nullptr || !needed, "{} = null is needed by this problem; nearest: a valid pointer", name);
  require(pointer == nullptr || !out_of_place, "{} is given and the problem has no such option; nearest: null", name);
  if (pointer == nullptr || !needed) return;
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  require(address % static_cast<std::uintptr_t>(alignment) == 0,
          "{} = {} is not a multiple of {} bytes as the problem promises; nearest: {}", name, pointer, alignment,
          reinterpret_cast<const void*>(address / static_cast<std::uintptr_t>(alignment) *
                                        static_cast<std::uintptr_t>(alignment)));
  check_place(name, pointer, device);
}

void check_buffers(const Problem& p, const Buffers& b, const Device& device) {
  const bool forward = p.pass != Pass::backward, backward = p.pass == Pass::backward;
  const auto& bias = p.score.bias;
  const bool no_bias = bias && bias->keys && p.seqlen_k == 0;
  const auto tensor = [&](const char* name, const void* pointer, Operand operand) {
    const bool needed = takes_part(p.pass, operand) && !extents(p, operand).empty();
    check({name, pointer, needed, false, p.alignment}, device);
  };
  // An array that an option of the problem calls for. It may be null where it has no elements.
  const auto option = [&](const char* name, const void* pointer, bool given, int64_t size, bool empty = false) {
    check({name, pointer, given && !empty, !given, size}, device);
  };
  // The same, of one pass; the other passes ignore it.
  const auto option_of = [&](bool this_pass, const char* name, const void* pointer, bool given, bool empty = false) {
    if (this_pass) option(name, pointer, given, 4, empty);
  };

  tensor("q", b.q, Operand::q);
  tensor("k", b.k, Operand::k);
  tensor("v", b.v, Operand::v);
  tensor("o", b.o, Operand::o);
  tensor("dout", b.dout, Operand::dout);
  tensor("dq", b.dq, Operand::dq);
  tensor("dk", b.dk, Operand::dk);
  tensor("dv", b.dv, Operand::dv);

  option("lse", b.lse, backward || p.return_lse, 4);
  option_of(forward, "max_logit", b.max_logit, p.return_max_logit);
  option_of(backward, "dlse", b.dlse, p.dlse);
  option_of(backward, "dbias", b.dbias, p.dbias, no_bias);
  option_of(backward, "dsink", b.dsink, p.dsink);

  option("cu_seqlens_q", b.cu_seqlens_q, p.total_q.has_value(), 4);
  option("cu_seqlens_k", b.cu_seqlens_k, p.total_k.has_value(), 4);
  option("seqused_q", b.seqused_q, p.seqused_q, 4);
  option("seqused_k", b.seqused_k, p.seqused_k, 4);

  option("bias", b.bias, bias.has_value(), bias ? size_of(bias->dtype) : 1, no_bias);
  option("alibi_slopes", b.alibi_slopes, p.score.alibi != Alibi::none, 4);
  option("sinks", b.sinks, p.sinks, 4);

  option("document_q", b.document_q, p.mask.documents, 4);
  option("document_k", b.document_k, p.mask.documents, 4, extents(p, Operand::k).empty());
  option("prefix", b.prefix, p.mask.prefix, 4);
  const bool blocks = static_cast<bool>(p.mask.block_sparse);
  option("block_offsets", b.block_offsets, blocks, 4);
  option("block_columns", b.block_columns, blocks, 4);
  option("block_bits", b.block_bits, blocks, 8);
  if (!blocks || b.block_mask != nullptr) option("block_mask", b.block_mask, blocks, 4);  // null: no partial block

  option("dropout_seed", b.dropout_seed, p.dropout > 0, 8);
  option("dropout_offset", b.dropout_offset, p.dropout > 0, 8);
  const bool descaled = p.descale.kind != DescaleKind::none;
  option("q_descale", b.q_descale, descaled, 4);
  const bool no_factors = p.descale.kind == DescaleKind::block && p.seqlen_k == 0;
  option("k_descale", b.k_descale, descaled, 4, no_factors);
  option("v_descale", b.v_descale, descaled, 4, no_factors);

  const KvCache cache = p.kv_cache.value_or(KvCache{});
  option("page_table", b.page_table, cache.page_size > 0, 4);
  option("k_new", b.k_new, cache.append > 0, p.alignment);
  option("v_new", b.v_new, cache.append > 0, p.alignment);
  option("leftpad", b.leftpad, cache.leftpad, 4);
  option("rotary_cos", b.rotary_cos, cache.rotary_dim > 0, size_of(p.dtype));
  option("rotary_sin", b.rotary_sin, cache.rotary_dim > 0, size_of(p.dtype));
}

void check_workspace(const Plan& plan, Workspace workspace) {
  const std::size_t needed = plan.workspace_bytes();
  if (needed == 0) return;
  if (workspace.data == nullptr || workspace.bytes < needed) {
    fail(Status::workspace_too_small, "workspace = {} bytes at {}; nearest: {} bytes",
         workspace.data == nullptr ? 0 : workspace.bytes, workspace.data, needed);
  }
  if (reinterpret_cast<std::uintptr_t>(workspace.data) % Plan::workspace_alignment() != 0) {
    fail(Status::workspace_too_small, "workspace = {} is not a multiple of {} bytes; nearest: an aligned address",
         workspace.data, Plan::workspace_alignment());
  }
  check_place("workspace", workspace.data, plan.device());
}

void check_stream(const Device& device, const Stream& stream) {
  const bool cpu = device.kind == DeviceKind::cpu;
  require(!cpu || stream.cuda == nullptr, "stream is a CUDA stream and the plan is for the cpu; nearest: an executor");
  require(cpu || stream.executor == nullptr,
          "stream is an executor and the plan is for a CUDA device; nearest: a CUDA stream");
}

void check_present(const Device& device) {
  if (device.index >= 0) return;
  fail(Status::device_not_present, "device = {} is only described; nearest: a plan for cpu(){}", device.name,
       accelerator::compiled() ? " or cuda()" : "");
}

HostLengths lengths_of(const Buffers& b) { return {b.cu_seqlens_q, b.cu_seqlens_k, b.seqused_q, b.seqused_k}; }

// What of the data is checked where it can be read: numbers that say where other data lie.
void check_host_data(const Problem& problem, const Buffers& b) {
  check_lengths(problem, lengths_of(b));
  if (!problem.mask.block_sparse) return;
  check_blocks(problem, {b.block_offsets, b.block_columns, b.block_bits, b.block_mask != nullptr});
}

}  // namespace

void run(const Plan& plan, const Buffers& buffers, Workspace workspace, Stream stream) {
  const detail::PlanState& state = plan.state();
  check_present(state.device);
  check_stream(state.device, stream);
  check_buffers(state.problem, buffers, state.device);
  check_workspace(plan, workspace);
  check_overlap(state.problem, buffers, workspace.data, plan.workspace_bytes());
  if (state.device.kind == DeviceKind::cpu) check_host_data(state.problem, buffers);
  state.kernel->run({state.problem, state.device, state.launch, buffers, workspace, stream});
}

void validate_device(const Plan& plan, const Buffers& buffers, Stream stream) {
  const detail::PlanState& state = plan.state();
  const Problem& problem = state.problem;
  check_present(state.device);
  check_stream(state.device, stream);
  check_buffers(problem, buffers, state.device);
  if (state.device.kind == DeviceKind::cpu) return check_host_data(problem, buffers);

  const auto copy = [&]<class T>(std::vector<T>& to, const T* from, int64_t count) {
    if (from == nullptr || count == 0) return static_cast<const T*>(nullptr);
    to.resize(static_cast<std::size_t>(count));
    accelerator::copy_to_host(to.data(), from, to.size() * sizeof(T), state.device.index, stream);
    return static_cast<const T*>(to.data());
  };
  std::vector<std::int32_t> copies[4];
  check_lengths(problem,
                {copy(copies[0], buffers.cu_seqlens_q, problem.batch + 1),
                 copy(copies[1], buffers.cu_seqlens_k, problem.batch + 1),
                 copy(copies[2], buffers.seqused_q, problem.batch), copy(copies[3], buffers.seqused_k, problem.batch)});
  if (!problem.mask.block_sparse) return;
  std::vector<std::int32_t> offsets, columns;
  std::vector<int64_t> bits;
  copy(offsets, buffers.block_offsets, count_of_block_offsets(problem));
  const int64_t entries = check_block_offsets(problem, offsets.data());
  copy(columns, buffers.block_columns, entries);
  copy(bits, buffers.block_bits, entries);
  check_blocks(problem, {offsets.data(), columns.data(), bits.data(), buffers.block_mask != nullptr});
}

}  // namespace fattn
