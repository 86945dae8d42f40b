// SPDX-License-Identifier: Apache-2.0
#include "cpu/decline.hpp"

namespace fattn::host {

std::string decline(const Problem& p, Pass pass) {
  const auto named = [](const char* argument, auto value) { return argument + (" = " + std::string(value)); };
  if (p.pass != pass) return named("pass", to_string(p.pass)) + ": this row computes " + std::string(to_string(pass));
  if (p.dtype != DType::fp32 && p.dtype != DType::bf16 && p.dtype != DType::fp16) {
    return named("dtype", to_string(p.dtype)) + ": this row has fp32, bf16 and fp16";
  }
  const DType out = output_dtype(p);
  if (out != DType::fp32 && out != DType::bf16 && out != DType::fp16) {
    return named("out_dtype", to_string(out)) + ": this row has fp32, bf16 and fp16";
  }
  if (p.head_dim > 576) return named("head_dim", std::to_string(p.head_dim)) + ": this row has at most 576";
  if (head_dim_v(p) > 512) return named("head_dim_v", std::to_string(head_dim_v(p))) + ": this row has at most 512";
  if (p.descale.kind != DescaleKind::none) return "descale: this row has none";
  if (p.kv_cache) return "kv_cache: this row reads plain k and v";
  if (p.score.bias && p.score.bias->dtype != DType::fp32 && p.score.bias->dtype != DType::bf16 &&
      p.score.bias->dtype != DType::fp16) {
    return named("bias dtype", to_string(p.score.bias->dtype)) + ": this row has fp32, bf16 and fp16";
  }
  return {};
}

std::string decline_pairs(const Problem& p, Pass pass) {
  if (p.pass == pass && p.dtype != DType::bf16)
    return "dtype = " + std::string(to_string(p.dtype)) + ": this row has bf16";
  return decline(p, pass);
}

}  // namespace fattn::host
