// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

#include "algebra/rounding.hpp"
#include "algebra/softmax_state.hpp"
#include "cpu/backward.hpp"
#include "cpu/decline.hpp"
#include "cpu/forward.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET avx2
FATTN_BEGIN_TARGET("avx2,fma,f16c")
#include "cpu/gemm/avx2.hpp"

#include "cpu/products/vector-inl.hpp"

#include "cpu/softmax/vector-inl.hpp"

#include "cpu/backward-inl.hpp"
#include "cpu/forward-inl.hpp"
FATTN_END_TARGET

namespace fattn {
namespace {

std::string decline(const Problem& problem, const Device& device, Pass pass) {
  if (!device.avx2) return "device \"" + device.name + "\": this row needs AVX2, FMA and F16C; cpu_scalar needs none";
  return host::decline(problem, pass);
}

}  // namespace

extern const Kernel fattn_kernel_cpu_avx2_forward, fattn_kernel_cpu_avx2_backward;
const Kernel fattn_kernel_cpu_avx2_forward = {
    .name = "cpu_avx2_forward",
    .device = DeviceKind::cpu,
    .pass = Pass::forward,
    .decline = [](const Problem& p, const Device& d) { return decline(p, d, Pass::forward); },
    .prepare = [](const Problem& p, const Device& d) { return host::prepare_forward(p, d, host::avx2::kBlocking); },
    .run = [](const Run& r) { host::run_forward(r, host::avx2::kForwardParts); }};

const Kernel fattn_kernel_cpu_avx2_backward = {
    .name = "cpu_avx2_backward",
    .device = DeviceKind::cpu,
    .pass = Pass::backward,
    .decline = [](const Problem& p, const Device& d) { return decline(p, d, Pass::backward); },
    .prepare = [](const Problem& p, const Device& d) { return host::prepare_backward(p, d, host::avx2::kBlocking); },
    .run = [](const Run& r) { host::run_backward(r, host::avx2::kBackwardParts); }};

}  // namespace fattn
