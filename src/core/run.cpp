// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <span>
#include <vector>

#include "core/accelerator.hpp"
#include "core/blocks.hpp"
#include "core/buffer_table.hpp"
#include "core/kernel.hpp"
#include "core/lengths.hpp"
#include "core/message.hpp"
#include "core/overlap.hpp"

namespace fattn {

Executor::~Executor() = default;

namespace {

using accelerator::Space;
using std::int64_t;

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

void check(const BufferEntry& entry, const void* pointer, const Device& device) {
  const char* const name = entry.name;
  const auto alignment = static_cast<std::uintptr_t>(entry.alignment);
  const bool needed = entry.needed && !(entry.may_be_null && pointer == nullptr);
  require(pointer != nullptr || !needed, "{} = null is needed by this problem; nearest: a valid pointer", name);
  require(pointer == nullptr || !entry.out_of_place, "{} is given and the problem has no such option; nearest: null",
          name);
  if (pointer == nullptr || !needed) return;
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  require(address % alignment == 0, "{} = {} is not a multiple of {} bytes as the problem promises; nearest: {}", name,
          pointer, alignment, reinterpret_cast<const void*>(address / alignment * alignment));
  check_place(name, pointer, device);
}

void check_buffers(std::span<const BufferEntry> table, const Buffers& buffers, const Device& device) {
  for (const BufferEntry& entry : table) {
    const void* const pointer = pointer_of(entry, buffers);
    if (pointer != nullptr || entry.needed) check(entry, pointer, device);
  }
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
  check_buffers(state.buffers, buffers, state.device);
  check_workspace(plan, workspace);
  check_overlap(state.buffers, buffers, workspace.data, plan.workspace_bytes());
  if (state.device.kind == DeviceKind::cpu) check_host_data(state.problem, buffers);
  state.kernel->run({state.problem, state.device, state.launch, buffers, workspace, stream});
}

void validate_device(const Plan& plan, const Buffers& buffers, Stream stream) {
  const detail::PlanState& state = plan.state();
  const Problem& problem = state.problem;
  check_present(state.device);
  check_stream(state.device, stream);
  check_buffers(state.buffers, buffers, state.device);
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
