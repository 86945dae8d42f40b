// SPDX-License-Identifier: Apache-2.0
#include "reference/row.hpp"

namespace fattn::reference {

std::string decline(const Problem& problem, Arithmetic arithmetic) {
  if (problem.dtype == DType::fp64 && arithmetic != Arithmetic::fp64)
    return "dtype = fp64: this row has fp32, bf16, fp16, e4m3";
  if (problem.kv_cache) return "kv_cache: this row has dense and packed keys and values";
  return {};
}

}  // namespace fattn::reference
