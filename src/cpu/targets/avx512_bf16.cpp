// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <cstdint>

#include "algebra/rounding.hpp"
#include "algebra/softmax_state.hpp"
#include "cpu/backward.hpp"
#include "cpu/decline.hpp"
#include "cpu/forward.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET avx512_bf16
FATTN_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")
#include "cpu/gemm/avx512_bf16.hpp"

#include "cpu/products/pairs-inl.hpp"

#include "cpu/softmax/pairs-inl.hpp"

#include "cpu/forward-inl.hpp"
#include "cpu/transposed-inl.hpp"
FATTN_END_TARGET

namespace fattn {
namespace {

std::string decline(const Problem& problem, const Device& device, Pass pass) {
  if (!device.avx512_bf16) return "device \"" + device.name + "\": this row needs AVX512_BF16; cpu_avx512 does not";
  return host::decline_pairs(problem, pass);
}

}  // namespace

extern const Kernel fattn_kernel_cpu_avx512_bf16_forward, fattn_kernel_cpu_avx512_bf16_backward;
const Kernel fattn_kernel_cpu_avx512_bf16_forward = {
    .name = "cpu_avx512_bf16_forward",
    .device = DeviceKind::cpu,
    .pass = Pass::forward,
    .decline = [](const Problem& p, const Device& d) { return decline(p, d, Pass::forward); },
    .prepare = [](const Problem& p,
                  const Device& d) { return host::prepare_forward(p, d, host::avx512_bf16::kBlocking); },
    .run = [](const Run& r) { host::run_forward(r, host::avx512_bf16::kForwardParts); }};

const Kernel fattn_kernel_cpu_avx512_bf16_backward = {
    .name = "cpu_avx512_bf16_backward",
    .device = DeviceKind::cpu,
    .pass = Pass::backward,
    .decline = [](const Problem& p, const Device& d) { return decline(p, d, Pass::backward); },
    .prepare = [](const Problem& p,
                  const Device& d) { return host::prepare_backward(p, d, host::avx512_bf16::kBlocking); },
    .run = [](const Run& r) { host::run_backward(r, host::avx512_bf16::kPairsBackwardParts); }};

}  // namespace fattn
