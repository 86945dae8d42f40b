// SPDX-License-Identifier: Apache-2.0
#include "reference/row.hpp"

namespace fattn::reference {

std::string decline(const Problem& problem, Arithmetic arithmetic) {
  if (problem.dtype == DType::e4m3) return "dtype = e4m3: this row has fp64, fp32, bf16, fp16";
  if (problem.dtype == DType::fp64 && arithmetic != Arithmetic::fp64)
    return "dtype = fp64: this row has fp32, bf16, fp16";
  if (output_dtype(problem) == DType::e4m3) return "out_dtype = e4m3: this row has fp64, fp32, bf16, fp16";
  if (problem.score.bias && problem.score.bias->dtype == DType::e4m3) {
    return "bias dtype = e4m3: this row has fp64, fp32, bf16, fp16";
  }
  if (problem.descale.kind != DescaleKind::none) return "descale: this row has none";
  if (problem.mask.documents) return "mask = documents: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.prefix) return "mask = prefix: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.block_sparse) return "mask = block_sparse: this row has causal, causal_top_left, window, chunk";
  if (problem.dropout > 0) return "dropout = " + std::to_string(problem.dropout) + ": this row has 0";
  if (problem.kv_cache) return "kv_cache: this row has dense and packed keys and values";
  return {};
}

}  // namespace fattn::reference
