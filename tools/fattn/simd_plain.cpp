// SPDX-License-Identifier: Apache-2.0
#include "simd.hpp"

namespace fattn::tool {

std::optional<double> cpu_peak_tflops(int, CpuUnit) { return std::nullopt; }

void multiply(const Product& product) { multiply_plain(product); }

}  // namespace fattn::tool
