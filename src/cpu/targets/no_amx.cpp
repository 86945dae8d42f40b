// SPDX-License-Identifier: Apache-2.0
#include "core/kernel.hpp"

// The AMX rows of a library built for another processor.
namespace fattn {
namespace {

std::string decline(const Problem&, const Device&) { return "this row needs AMX; cpu_scalar needs none"; }

}  // namespace

extern const Kernel fattn_kernel_cpu_amx_forward, fattn_kernel_cpu_amx_backward;
const Kernel fattn_kernel_cpu_amx_forward = {
    .name = "cpu_amx_forward", .device = DeviceKind::cpu, .pass = Pass::forward, .decline = decline};
const Kernel fattn_kernel_cpu_amx_backward = {
    .name = "cpu_amx_backward", .device = DeviceKind::cpu, .pass = Pass::backward, .decline = decline};

}  // namespace fattn
