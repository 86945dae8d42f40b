// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "core/kernel.hpp"
#include "core/lower.hpp"
#include "cuda/common/reference_params.hpp"
#include "cuda/device.hpp"
#include "cuda/launch.hpp"

// The rows cuda_reference_forward and cuda_reference_backward: the oracle on the device.
namespace fattn {
namespace gpu {
namespace {

std::string decline(const Problem& problem, const Device& device) {
  if (std::string reason = decline_device(device); !reason.empty()) return reason;
  if (problem.dtype == DType::e4m3) return "dtype = e4m3: this row has fp64, fp32, bf16, fp16";
  if (problem.mask.documents) return "mask = documents: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.prefix) return "mask = prefix: this row has causal, causal_top_left, window, chunk";
  if (problem.mask.block_sparse) return "mask = block_sparse: this row has causal, causal_top_left, window, chunk";
  if (problem.dropout > 0) return "dropout = " + std::to_string(problem.dropout) + ": this row has 0";
  if (problem.kv_cache) return "kv_cache: this row has dense and packed keys and values";
  return {};
}

std::int64_t row_count(const Problem& problem) {
  return problem.heads_q * (problem.total_q ? *problem.total_q : problem.batch * problem.seqlen_q);
}

// Workspace: fp64 values for each row of each query head, as lse is laid out. No counters.
Launch prepare(const Problem& problem, const Device& device) {
  const bool backward = problem.pass == Pass::backward;
  load_reference_rows(device, backward);
  load_reference_products(device, backward);
  Launch launch;
  launch.shape = {.tile = "64x64, fp64",
                  .grid = (problem.seqlen_q + 63) / 64 * problem.heads_q * problem.batch,
                  .threads = 256,
                  .shared_memory_bytes = static_cast<std::int64_t>(reference_shared_bytes())};
  const std::int64_t arrays = backward || problem.return_max_logit ? 2 : 1;
  launch.workspace_bytes = static_cast<std::size_t>(arrays * row_count(problem)) * sizeof(double);
  return launch;
}

ReferenceTensor tensor(const Problem& problem, Operand operand, const void* data, DType dtype, bool packed) {
  Strides stride = strides(problem, operand);
  if (packed) stride.batch = 0;
  return {const_cast<void*>(data), dtype, stride};
}

ReferenceBias bias_of(const Problem& problem, const void* data) {
  ReferenceBias result;
  if (!problem.score.bias) return result;
  const Bias& bias = *problem.score.bias;
  result.data = data;
  result.dtype = bias.dtype;
  result.batch = bias.batch;
  result.heads = bias.heads;
  result.queries = bias.queries;
  result.keys = bias.keys;
  std::int64_t step = 1;
  const auto stride = [&](bool present, std::int64_t extent) {
    const std::int64_t mine = present ? step : 0;
    if (present) step *= extent;
    return mine;
  };
  result.key_stride = stride(bias.keys, problem.seqlen_k);
  result.query_stride = stride(bias.queries, problem.seqlen_q);
  result.head_stride = stride(bias.heads, problem.heads_q);
  result.batch_stride = stride(bias.batch, problem.batch);
  return result;
}

ReferenceParams params_of(const Run& run) {
  const Problem& problem = run.problem;
  const Buffers& buffers = run.buffers;
  const bool backward = problem.pass == Pass::backward;
  const bool packed_q = problem.total_q.has_value(), packed_k = problem.total_k.has_value();
  const DType in = problem.dtype, out = output_dtype(problem);
  double* const workspace = static_cast<double*>(run.workspace.data);

  ReferenceParams p{};
  p.batch = static_cast<int>(problem.batch);
  p.heads_q = static_cast<int>(problem.heads_q);
  p.heads_kv = static_cast<int>(problem.heads_kv);
  p.seqlen_q = static_cast<int>(problem.seqlen_q);
  p.seqlen_k = static_cast<int>(problem.seqlen_k);
  p.head_dim = static_cast<int>(problem.head_dim);
  p.head_dim_v = static_cast<int>(head_dim_v(problem));
  p.total_q = problem.total_q.value_or(-1);
  p.total_k = problem.total_k.value_or(-1);
  p.cu_seqlens_q = packed_q ? buffers.cu_seqlens_q : nullptr;
  p.cu_seqlens_k = packed_k ? buffers.cu_seqlens_k : nullptr;
  p.seqused_q = problem.seqused_q ? buffers.seqused_q : nullptr;
  p.seqused_k = problem.seqused_k ? buffers.seqused_k : nullptr;

  p.band = lower_band(problem.mask);
  p.score = {softmax_scale(problem), problem.score.softcap};
  p.bias = bias_of(problem, buffers.bias);
  p.alibi_slopes = problem.score.alibi != Alibi::none ? buffers.alibi_slopes : nullptr;
  p.alibi_batch_stride = problem.score.alibi == Alibi::per_batch_and_head ? problem.heads_q : 0;
  p.sinks = problem.sinks ? buffers.sinks : nullptr;

  p.q = tensor(problem, Operand::q, buffers.q, in, packed_q);
  p.k = tensor(problem, Operand::k, buffers.k, in, packed_k);
  p.v = tensor(problem, Operand::v, buffers.v, in, packed_k);
  p.row_lse = workspace;
  if (backward) {
    p.dout = tensor(problem, Operand::dout, buffers.dout, in, packed_q);
    p.dq = tensor(problem, Operand::dq, buffers.dq, out, packed_q);
    p.dk = tensor(problem, Operand::dk, buffers.dk, out, packed_k);
    p.dv = tensor(problem, Operand::dv, buffers.dv, out, packed_k);
    p.dlse = problem.dlse ? buffers.dlse : nullptr;
    p.dbias = buffers.dbias;
    p.dsink = buffers.dsink;
    p.row_delta = workspace + row_count(problem);
  } else {
    p.o = tensor(problem, Operand::o, buffers.o, out, packed_q);
    p.lse = problem.return_lse ? buffers.lse : nullptr;
    p.max_logit = buffers.max_logit;
    if (problem.return_max_logit) p.row_max_logit = workspace + row_count(problem);
  }
  return p;
}

// Outputs are cleared whole first, so that rows no sequence has are written too.
void run_forward(const Run& run) {
  const ReferenceParams p = params_of(run);
  const DeviceGuard guard(run.device.index);
  const cudaStream_t stream = run.stream.cuda;
  reference_clear(p, p.o, true, p.heads_q, p.head_dim_v, stream);
  if (p.lse != nullptr) reference_clear_lse(p, stream);
  reference_statistics(p, stream);
  if (run.problem.return_max_logit) reference_max_logit(p, stream);
  reference_product(Product::o, p, stream);
}

void run_backward(const Run& run) {
  const ReferenceParams p = params_of(run);
  const DeviceGuard guard(run.device.index);
  const cudaStream_t stream = run.stream.cuda;
  reference_clear(p, p.dq, true, p.heads_q, p.head_dim, stream);
  reference_clear(p, p.dk, false, p.heads_kv, p.head_dim, stream);
  reference_clear(p, p.dv, false, p.heads_kv, p.head_dim_v, stream);
  reference_statistics(p, stream);
  reference_delta(p, stream);
  for (const Product product : {Product::dq, Product::dk, Product::dv}) reference_product(product, p, stream);
  if (run.problem.dbias) reference_dbias(p, stream);
  if (run.problem.dsink) reference_dsink(p, stream);
}

}  // namespace
}  // namespace gpu

extern const Kernel fattn_kernel_cuda_reference_forward;
extern const Kernel fattn_kernel_cuda_reference_backward;
const Kernel fattn_kernel_cuda_reference_forward = {.name = "cuda_reference_forward",
                                                    .device = DeviceKind::cuda,
                                                    .pass = Pass::forward,
                                                    .by_name_only = true,
                                                    .decline = gpu::decline,
                                                    .prepare = gpu::prepare,
                                                    .run = gpu::run_forward};
const Kernel fattn_kernel_cuda_reference_backward = {.name = "cuda_reference_backward",
                                                     .device = DeviceKind::cuda,
                                                     .pass = Pass::backward,
                                                     .by_name_only = true,
                                                     .decline = gpu::decline,
                                                     .prepare = gpu::prepare,
                                                     .run = gpu::run_backward};

}  // namespace fattn
