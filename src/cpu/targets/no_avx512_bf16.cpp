// SPDX-License-Identifier: Apache-2.0
#include "core/kernel.hpp"

// The AVX512_BF16 rows of a library built for another processor.
namespace fattn {
namespace {

std::string decline(const Problem&, const Device&) { return "this row needs AVX512_BF16; cpu_scalar needs none"; }

}  // namespace

extern const Kernel fattn_kernel_cpu_avx512_bf16_forward, fattn_kernel_cpu_avx512_bf16_backward;
const Kernel fattn_kernel_cpu_avx512_bf16_forward = {
    .name = "cpu_avx512_bf16_forward", .device = DeviceKind::cpu, .pass = Pass::forward, .decline = decline};
const Kernel fattn_kernel_cpu_avx512_bf16_backward = {
    .name = "cpu_avx512_bf16_backward", .device = DeviceKind::cpu, .pass = Pass::backward, .decline = decline};

}  // namespace fattn
