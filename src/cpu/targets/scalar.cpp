// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "algebra/rounding.hpp"
#include "algebra/softmax_state.hpp"
#include "cpu/backward.hpp"
#include "cpu/decline.hpp"
#include "cpu/forward.hpp"
#include "cpu/target_region.hpp"

// The machine the whole library is built for: no region to open.
#define FATTN_TARGET scalar
#include "cpu/gemm/scalar.hpp"

#include "cpu/products/vector-inl.hpp"

#include "cpu/softmax/vector-inl.hpp"

#include "cpu/backward-inl.hpp"
#include "cpu/forward-inl.hpp"

namespace fattn {

extern const Kernel fattn_kernel_cpu_scalar_forward, fattn_kernel_cpu_scalar_backward;
const Kernel fattn_kernel_cpu_scalar_forward = {
    .name = "cpu_scalar_forward",
    .device = DeviceKind::cpu,
    .pass = Pass::forward,
    .decline = [](const Problem& p, const Device&) { return host::decline(p, Pass::forward); },
    .prepare = [](const Problem& p, const Device& d) { return host::prepare_forward(p, d, host::scalar::kBlocking); },
    .run = [](const Run& r) { host::run_forward(r, host::scalar::kForwardParts); }};

const Kernel fattn_kernel_cpu_scalar_backward = {
    .name = "cpu_scalar_backward",
    .device = DeviceKind::cpu,
    .pass = Pass::backward,
    .decline = [](const Problem& p, const Device&) { return host::decline(p, Pass::backward); },
    .prepare = [](const Problem& p, const Device& d) { return host::prepare_backward(p, d, host::scalar::kBlocking); },
    .run = [](const Run& r) { host::run_backward(r, host::scalar::kBackwardParts); }};

}  // namespace fattn
