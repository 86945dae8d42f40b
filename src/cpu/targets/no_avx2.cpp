// SPDX-License-Identifier: Apache-2.0
#include "core/kernel.hpp"

// The AVX2 rows of a library built for another processor.
namespace fattn {
namespace {

std::string decline(const Problem&, const Device&) {
  return "this row needs AVX2, FMA and F16C; cpu_scalar needs none";
}

}  // namespace

extern const Kernel fattn_kernel_cpu_avx2_forward, fattn_kernel_cpu_avx2_backward;
const Kernel fattn_kernel_cpu_avx2_forward = {
    .name = "cpu_avx2_forward", .device = DeviceKind::cpu, .pass = Pass::forward, .decline = decline};
const Kernel fattn_kernel_cpu_avx2_backward = {
    .name = "cpu_avx2_backward", .device = DeviceKind::cpu, .pass = Pass::backward, .decline = decline};

}  // namespace fattn
