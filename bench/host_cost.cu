// SPDX-License-Identifier: Apache-2.0
// What plan() and run() cost the host, beside launches of an empty kernel with as many bytes of parameters.
// Prints a JSON object a problem; bench/measures.py makes records of them.
//
//   host_cost PROBLEM...

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fattn/fattn.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/sm90/forward_params.hpp"

namespace {

using fattn::gpu::sm90::DenseSource;
using fattn::gpu::sm90::IdentityScore;
using Params = fattn::gpu::sm90::ForwardParams<fattn::gpu::tile::BandMask, IdentityScore, DenseSource>;

struct Bytes {
  alignas(alignof(Params)) unsigned char data[sizeof(Params)];
};
__global__ void empty(const __grid_constant__ Bytes) {}

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

// Microseconds a call, median of 31 batches that the launch queue holds without waiting for the GPU.
template <class Call>
double host_us(Call&& call) {
  constexpr int kCalls = 200;
  std::vector<double> batches;
  for (int batch = 0; batch < 31; batch++) {
    check(cudaDeviceSynchronize());
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kCalls; i++) call();
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
    batches.push_back(time.count() / kCalls);
  }
  std::nth_element(batches.begin(), batches.begin() + 15, batches.end());
  return batches[15];
}

void* device_memory(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, std::max<std::size_t>(bytes, 256)));
  check(cudaMemset(memory, 0, std::max<std::size_t>(bytes, 256)));
  return memory;
}

// Memory is kept to the end: the process is short.
void measure(const char* text) {
  const fattn::Problem problem = fattn::parse_problem(text);
  if (problem.pass != fattn::Pass::forward || problem.total_q || problem.total_k || problem.dtype == fattn::DType::fp32)
    throw std::invalid_argument("host_cost: dense 16-bit forward problems only");
  const auto bytes = [&](std::int64_t seqlen, std::int64_t heads, std::int64_t dim) {
    return static_cast<std::size_t>(problem.batch * seqlen * heads * dim * 2);
  };
  const fattn::Plan plan = fattn::plan(problem, fattn::cuda());
  const fattn::Buffers buffers = {
      .q = device_memory(bytes(problem.seqlen_q, problem.heads_q, problem.head_dim)),
      .k = device_memory(bytes(problem.seqlen_k, problem.heads_kv, problem.head_dim)),
      .v = device_memory(bytes(problem.seqlen_k, problem.heads_kv, fattn::head_dim_v(problem))),
      .o = device_memory(bytes(problem.seqlen_q, problem.heads_q, fattn::head_dim_v(problem))),
      .lse = static_cast<float*>(device_memory(2 * bytes(problem.seqlen_q, problem.heads_q, 1)))};
  const std::size_t workspace_bytes = plan.workspace_bytes();
  void* workspace = workspace_bytes ? device_memory(workspace_bytes) : nullptr;
  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream));

  const auto run = [&] { fattn::run(plan, buffers, {.data = workspace, .bytes = workspace_bytes}, stream); };
  const auto launch = [&] { empty<<<132, 384, 0, stream>>>(Bytes{}); };
  const auto make_plan = [&] { fattn::plan(problem, fattn::cuda()); };
  run(), launch();
  const double run_us = host_us(run), launch_us = host_us(launch), plan_us = host_us(make_plan);
  check(cudaStreamSynchronize(stream));
  std::printf(
      "{\"problem\": \"%s\", \"kernel\": \"%s\", \"run_us\": %.3f, \"launch_us\": %.3f, \"launch_bytes\": %zu, "
      "\"plan_us\": %.3f}\n",
      fattn::to_string(problem).c_str(), std::string(plan.kernel()).c_str(), run_us, launch_us, sizeof(Params),
      plan_us);
}

}  // namespace

int main(int count, char** texts) {
  try {
    for (int i = 1; i < count; i++) measure(texts[i]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
