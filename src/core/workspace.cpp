// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <new>

#include "core/message.hpp"
#include "fattn/workspace.hpp"

namespace fattn {
namespace {

constexpr std::align_val_t kAlignment{Plan::workspace_alignment()};

}  // namespace

HostWorkspace::HostWorkspace(const Plan& plan) : bytes_(plan.workspace_bytes()) {
  require(plan.device().kind == DeviceKind::cpu,
          "plan is for {}, whose workspace is not host memory; nearest: {} zeroed bytes of its memory",
          plan.device().name, bytes_);
  if (bytes_ == 0) return;
  data_.reset(::operator new(bytes_, kAlignment, std::nothrow));
  if (data_ == nullptr) fail(Status::out_of_memory, "workspace = {} bytes of host memory could not be had", bytes_);
  std::memset(data_.get(), 0, bytes_);
}

void HostWorkspace::Release::operator()(void* data) const noexcept { ::operator delete(data, kAlignment); }

}  // namespace fattn
