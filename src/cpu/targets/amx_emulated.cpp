// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "algebra/rounding.hpp"
#include "algebra/softmax_state.hpp"
#include "cpu/backward.hpp"
#include "cpu/decline.hpp"
#include "cpu/forward.hpp"
#include "cpu/target_region.hpp"

// The AMX rows with the arithmetic of their tiles in plain code, so that any machine can test them: no region to open.
#define FATTN_TARGET amx_emulated
#include "cpu/gemm/amx_emulated.hpp"

#include "cpu/products/pairs-inl.hpp"

#include "cpu/softmax/pairs-inl.hpp"

#include "cpu/forward-inl.hpp"
#include "cpu/transposed-inl.hpp"

namespace fattn {

extern const Kernel fattn_kernel_cpu_amx_emulated_forward, fattn_kernel_cpu_amx_emulated_backward;
const Kernel fattn_kernel_cpu_amx_emulated_forward = {
    .name = "cpu_amx_emulated_forward",
    .device = DeviceKind::cpu,
    .pass = Pass::forward,
    .by_name_only = true,
    .decline = [](const Problem& p, const Device&) { return host::decline_pairs(p, Pass::forward); },
    .prepare = [](const Problem& p,
                  const Device& d) { return host::prepare_forward(p, d, host::amx_emulated::kBlocking); },
    .run = [](const Run& r) { host::run_forward(r, host::amx_emulated::kForwardParts); }};

const Kernel fattn_kernel_cpu_amx_emulated_backward = {
    .name = "cpu_amx_emulated_backward",
    .device = DeviceKind::cpu,
    .pass = Pass::backward,
    .by_name_only = true,
    .decline = [](const Problem& p, const Device&) { return host::decline_pairs(p, Pass::backward); },
    .prepare = [](const Problem& p,
                  const Device& d) { return host::prepare_backward(p, d, host::amx_emulated::kBlocking); },
    .run = [](const Run& r) { host::run_backward(r, host::amx_emulated::kPairsBackwardParts); }};

}  // namespace fattn
