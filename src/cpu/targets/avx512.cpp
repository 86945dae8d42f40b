// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

#include "algebra/rounding.hpp"
#include "algebra/softmax_state.hpp"
#include "cpu/backward.hpp"
#include "cpu/decline.hpp"
#include "cpu/forward.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET avx512
FATTN_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#include "cpu/gemm/avx512.hpp"

#include "cpu/products/vector-inl.hpp"

#include "cpu/softmax/vector-inl.hpp"

#include "cpu/backward-inl.hpp"
#include "cpu/forward-inl.hpp"
FATTN_END_TARGET

namespace fattn {
namespace {

std::string decline(const Problem& problem, const Device& device, Pass pass) {
  if (!device.avx512)
    return "device \"" + device.name + "\": this row needs AVX-512 F, BW, DQ and VL; cpu_avx2 does not";
  return host::decline(problem, pass);
}

}  // namespace

extern const Kernel fattn_kernel_cpu_avx512_forward, fattn_kernel_cpu_avx512_backward;
const Kernel fattn_kernel_cpu_avx512_forward = {
    .name = "cpu_avx512_forward",
    .device = DeviceKind::cpu,
    .pass = Pass::forward,
    .decline = [](const Problem& p, const Device& d) { return decline(p, d, Pass::forward); },
    .prepare = [](const Problem& p, const Device& d) { return host::prepare_forward(p, d, host::avx512::kBlocking); },
    .run = [](const Run& r) { host::run_forward(r, host::avx512::kForwardParts); }};

const Kernel fattn_kernel_cpu_avx512_backward = {
    .name = "cpu_avx512_backward",
    .device = DeviceKind::cpu,
    .pass = Pass::backward,
    .decline = [](const Problem& p, const Device& d) { return decline(p, d, Pass::backward); },
    .prepare = [](const Problem& p, const Device& d) { return host::prepare_backward(p, d, host::avx512::kBlocking); },
    .run = [](const Run& r) { host::run_backward(r, host::avx512::kBackwardParts); }};

}  // namespace fattn
