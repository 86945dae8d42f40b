// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "algebra/rounding.hpp"
#include "algebra/softmax_state.hpp"
#include "cpu/backward.hpp"
#include "cpu/decline.hpp"
#include "cpu/forward.hpp"
#include "cpu/target_region.hpp"

#define FATTN_TARGET amx
FATTN_BEGIN_TARGET("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")
#include "cpu/gemm/amx.hpp"

#include "cpu/products/pairs-inl.hpp"

#include "cpu/softmax/pairs-inl.hpp"

#include "cpu/forward-inl.hpp"
#include "cpu/transposed-inl.hpp"

namespace fattn::host::amx {

// Tiles are configured as long as an item runs.
inline void forward_with_tiles(const ForwardWork& work, std::int64_t item, int lane) {
  const Tiles tiles;
  forward_item(work, item, lane);
}
inline constexpr ForwardParts kForwardWithTiles{forward_with_tiles, merge_parts};
inline void delta_with_tiles(const BackwardWork& work, std::int64_t batch, std::int64_t head, std::int64_t q_tile,
                             int lane) {
  const Tiles tiles;
  delta_item(work, batch, head, q_tile, lane);
}
inline void block_with_tiles(const BackwardWork& work, const Block& block, int lane) {
  const Tiles tiles;
  pairs_block(work, block, lane);
}
inline constexpr BackwardParts kPartsWithTiles{delta_with_tiles, block_with_tiles, pairs_write_dq, write_dk_dv};

}  // namespace fattn::host::amx
FATTN_END_TARGET

namespace fattn {
namespace {

// Linux saves tiles only for processes that asked; one question serves all threads.
bool tiles_are_permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
}

std::string decline(const Problem& problem, const Device& device, Pass pass) {
  if (!device.amx_bf16) return "device \"" + device.name + "\": this row needs AMX with bf16; cpu_avx512 does not";
  if (device.index >= 0 && !tiles_are_permitted()) return "the system refused this process the use of AMX tiles";
  return host::decline_pairs(problem, pass);
}

}  // namespace

extern const Kernel fattn_kernel_cpu_amx_forward, fattn_kernel_cpu_amx_backward;
const Kernel fattn_kernel_cpu_amx_forward = {
    .name = "cpu_amx_forward",
    .device = DeviceKind::cpu,
    .pass = Pass::forward,
    .decline = [](const Problem& p, const Device& d) { return decline(p, d, Pass::forward); },
    .prepare = [](const Problem& p, const Device& d) { return host::prepare_forward(p, d, host::amx::kBlocking); },
    .run = [](const Run& r) { host::run_forward(r, host::amx::kForwardWithTiles); }};

const Kernel fattn_kernel_cpu_amx_backward = {
    .name = "cpu_amx_backward",
    .device = DeviceKind::cpu,
    .pass = Pass::backward,
    .decline = [](const Problem& p, const Device& d) { return decline(p, d, Pass::backward); },
    .prepare = [](const Problem& p, const Device& d) { return host::prepare_backward(p, d, host::amx::kBlocking); },
    .run = [](const Run& r) { host::run_backward(r, host::amx::kPartsWithTiles); }};

}  // namespace fattn
