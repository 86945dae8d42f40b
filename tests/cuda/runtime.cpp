// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <thread>

#include "cuda/harness.hpp"

// What docs/api.md promises about run() on a device, for every compiled CUDA row.
namespace fattn::test {
namespace {

// Each row is asked for the first of these that it accepts.
constexpr const char* kProblems[] = {
    "fwd b2 hq4 hk2 sq300 sk333 d128 bf16 causal lse",
    "fwd b2 hq4 hk2 sq300 sk333 d64 bf16 causal lse",
    "fwd b2 hq4 hk2 sq300 sk333 d64 fp16 causal lse",
    "fwd b2 hq40 hk4 sq300 sk4096 d64 bf16 causal lse",
    "fwd b2 hq40 hk4 sq300 sk4096 d64 fp16 causal lse",
    "bwd b2 hq4 hk2 sq300 sk333 d64 bf16 causal deterministic",
    "bwd b2 hq4 hk2 sq300 sk333 d128 bf16 causal deterministic",
    "bwd b2 hq4 hk2 sq300 sk333 d256 bf16 causal deterministic",
    "bwd b2 hq4 hk2 sq300 sk333 d64 fp16 causal deterministic",
    "bwd b2 hq4 hk2 sq300 sk333 d128 fp16 causal deterministic",
    "bwd b2 hq4 hk2 sq300 sk333 d256 fp16 causal deterministic",
};
constexpr const char* kPackedProblems[] = {
    "fwd b3 hq2 hk1 sq128 sk128 tq300 tk200 d64 bf16 causal seqused=k lse",
    "fwd b3 hq2 hk1 sq128 sk128 tq300 tk200 d64 fp16 causal seqused=k lse",
    "bwd b3 hq2 hk1 sq128 sk128 tq300 tk200 d64 bf16 causal seqused=k deterministic",
    "bwd b3 hq2 hk1 sq128 sk128 tq300 tk200 d64 fp16 causal seqused=k deterministic",
    "bwd b3 hq2 hk1 sq128 sk128 tq300 tk200 d128 bf16 causal seqused=k deterministic",
    "bwd b3 hq2 hk1 sq128 sk128 tq300 tk200 d128 fp16 causal seqused=k deterministic",
    "bwd b3 hq2 hk1 sq128 sk128 tq300 tk200 d256 bf16 causal seqused=k deterministic",
    "bwd b3 hq2 hk1 sq128 sk128 tq300 tk200 d256 fp16 causal seqused=k deterministic",
};
// Several short items a block, for the largest head_dim of each forward row: buffers change hands all the time.
constexpr const char* kCrowdedProblems[] = {
    "fwd b30 hq4 hk4 sq257 sk257 d256 bf16 causal lse",       "fwd b30 hq4 hk4 sq257 sk257 d256 fp16 causal lse",
    "fwd b30 hq4 hk4 sq257 sk257 d192 bf16 causal lse",       "fwd b30 hq4 hk4 sq257 sk257 d192 fp16 causal lse",
    "fwd b30 hq4 hk4 sq257 sk257 d192 dv128 bf16 causal lse", "fwd b30 hq4 hk4 sq257 sk257 d192 dv128 fp16 causal lse",
    "fwd b30 hq4 hk4 sq257 sk257 d128 bf16 causal lse",       "fwd b30 hq4 hk4 sq257 sk257 d128 fp16 causal lse",
    "fwd b30 hq4 hk4 sq257 sk257 d96 bf16 causal lse",        "fwd b30 hq4 hk4 sq257 sk257 d96 fp16 causal lse",
    "fwd b3 hq8 hk8 sq3100 sk3100 d64 bf16 causal lse",       "fwd b3 hq8 hk8 sq3100 sk3100 d64 fp16 causal lse",
};

// The plans of every compiled CUDA row. A row that accepts none of the problems needs one added, unless it may refuse.
template <std::size_t count>
std::vector<Plan> every_row(
    const Device& device, const char* const (&problems)[count], bool may_refuse,
    bool (*asked)(const KernelInfo&) = [](const KernelInfo&) { return true; }) {
  std::vector<Plan> plans;
  for (const KernelInfo& row : kernels()) {
    if (row.device != DeviceKind::cuda || !row.compiled || !asked(row)) continue;
    std::string refusals;
    const std::size_t before = plans.size();
    for (const char* text : problems) {
      const Problem problem = parse_problem(text);
      if (problem.pass != row.pass || plans.size() > before) continue;
      try {
        plans.push_back(plan(problem, device, row.name));
      } catch (const Error& error) {
        refusals += std::string(error.what()) + "\n";
      }
    }
    if (plans.size() > before) continue;
    if (may_refuse) {
      std::printf("NOTE: %s", refusals.c_str());
    } else {
      ADD_FAILURE() << "no problem in this test for row " << row.name << "\n" << refusals;
    }
  }
  return plans;
}
std::vector<Plan> every_row(const Device& device = cuda()) { return every_row(device, kProblems, false); }
std::vector<Plan> every_packed_row() { return every_row(cuda(), kPackedProblems, true); }

class Streams {
 public:
  explicit Streams(int count) : streams_(static_cast<std::size_t>(count)) {
    for (cudaStream_t& stream : streams_) must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  ~Streams() {
    for (cudaStream_t stream : streams_) cudaStreamDestroy(stream);
  }
  cudaStream_t operator[](int index) const { return streams_[static_cast<std::size_t>(index)]; }

 private:
  std::vector<cudaStream_t> streams_;
};

std::string message_of(auto call, Status expected = Status::invalid_argument) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), expected) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

// First in this file: in a process of its own (as ctest runs it) the capture is the first thing that runs a kernel.
TEST(CudaRun, CaptureIsTheFirstCall) {
  FATTN_NEEDS_GPU();
  for (const Plan& each : every_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    Placed captured(each), direct(each);
    const Streams streams(1);
    must(cudaDeviceSynchronize());
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    // The global mode forbids every call that might allocate or synchronise.
    FATTN_CUDA_OK(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeGlobal));
    run(each, captured.buffers, captured.workspace, streams[0]);
    FATTN_CUDA_OK(cudaStreamEndCapture(streams[0], &graph));
    FATTN_CUDA_OK(cudaGraphInstantiate(&executable, graph, 0));
    for (int replay = 0; replay < 3; ++replay) FATTN_CUDA_OK(cudaGraphLaunch(executable, streams[0]));
    run(each, direct.buffers, direct.workspace, streams[0]);
    EXPECT_EQ(finish(captured), finish(direct));
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
  }
}

// run() returns while the stream is still blocked, so it neither synchronises nor waits.
TEST(CudaRun, DoesNotSynchronise) {
  FATTN_NEEDS_GPU();
  for (const Plan& each : every_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    Placed placed(each);
    const Streams streams(1);
    must(cudaDeviceSynchronize());
    struct Gate {
      std::atomic<bool> open{false}, gave_up{false};
    } gate;
    const auto wait = [](void* opaque) {
      Gate& g = *static_cast<Gate*>(opaque);
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      while (!g.open && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      g.gave_up = !g.open;
    };
    FATTN_CUDA_OK(cudaLaunchHostFunc(streams[0], wait, &gate));
    run(each, placed.buffers, placed.workspace, streams[0]);
    EXPECT_EQ(cudaStreamQuery(streams[0]), cudaErrorNotReady);
    gate.open = true;
    FATTN_CUDA_OK(cudaStreamSynchronize(streams[0]));
    EXPECT_FALSE(gate.gave_up) << "run() waited for the stream";
  }
}

TEST(CudaRun, AllocatesNothing) {
  FATTN_NEEDS_GPU();
  for (const Plan& each : every_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    Placed placed(each);
    std::size_t before = 0, after = 0, total = 0;
    must(cudaDeviceSynchronize());
    must(cudaMemGetInfo(&before, &total));
    for (int i = 0; i < 3; ++i) run(each, placed.buffers, placed.workspace);
    must(cudaMemGetInfo(&after, &total));
    EXPECT_EQ(before, after);
    finish(placed);
  }
}

TEST(CudaRun, TwoStreamsTwoWorkspaces) {
  FATTN_NEEDS_GPU();
  for (const Plan& each : every_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    const auto expected = bits_of_one_run(each);
    Placed first(each), second(each);
    const Streams streams(2);
    must(cudaDeviceSynchronize());
    for (int i = 0; i < 5; ++i) {
      run(each, first.buffers, first.workspace, streams[0]);
      run(each, second.buffers, second.workspace, streams[1]);
    }
    EXPECT_EQ(finish(first), expected);
    EXPECT_EQ(finish(second), expected);
  }
}

// A Plan is shared by threads; each has its own workspace and stream.
TEST(CudaRun, OnePlanManyThreads) {
  FATTN_NEEDS_GPU();
  for (const Plan& each : every_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    const auto expected = bits_of_one_run(each);
    constexpr int kThreads = 4;
    std::vector<std::unique_ptr<Placed>> placed;
    placed.reserve(kThreads);
    for (int i = 0; i < kThreads; ++i) placed.push_back(std::make_unique<Placed>(each));
    const Streams streams(kThreads);
    must(cudaDeviceSynchronize());
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        Placed& mine = *placed[static_cast<std::size_t>(i)];
        try {
          for (int n = 0; n < 5; ++n) run(each, mine.buffers, mine.workspace, streams[i]);
        } catch (const Error& error) {
          ADD_FAILURE() << error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& mine : placed) EXPECT_EQ(finish(*mine), expected);
  }
}

// The same bits from one workspace, zeroed once, with other work beside: counters are left as they were found.
TEST(CudaRun, RepeatsBitForBit) {
  FATTN_NEEDS_GPU();
  for (const Plan& each : every_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    const auto expected = bits_of_one_run(each);
    Placed placed(each), load(each);
    const Streams streams(2);
    must(cudaDeviceSynchronize());
    const int runs = each.kernel().starts_with("cuda_reference") ? 20 : 1000;
    for (int i = 0; i < runs; ++i) {
      run(each, load.buffers, load.workspace, streams[1]);
      run(each, placed.buffers, placed.workspace, streams[0]);
      FATTN_CUDA_OK(cudaStreamSynchronize(streams[0]));
      placed.outputs.fetch();
      for (std::size_t n = 0; n < expected.size(); ++n)
        ASSERT_TRUE(placed.outputs.tensors()[n].bytes() == expected[n]) << "output " << n << " of run " << i;
    }
    EXPECT_EQ(finish(placed).size(), expected.size());
  }
}

// The head dims of 136 to 192 once read the next item's queries, in nearly every run of such a problem.
TEST(CudaRun, ManyItemsRepeatBitForBit) {
  FATTN_NEEDS_GPU();
  const auto asked = [](const KernelInfo& row) { return row.name.starts_with("sm90_forward"); };
  for (const Plan& each : every_row(cuda(), kCrowdedProblems, false, asked)) {
    SCOPED_TRACE(std::string(each.kernel()));
    const auto expected = bits_of_one_run(each);
    Placed placed(each);
    for (int i = 0; i < 10; ++i) {
      run(each, placed.buffers, placed.workspace);
      placed.outputs.fetch();
      for (std::size_t n = 0; n < expected.size(); ++n)
        ASSERT_TRUE(placed.outputs.tensors()[n].bytes() == expected[n]) << "output " << n << " of run " << i;
    }
    EXPECT_EQ(finish(placed), expected);
  }
}

// Every device's plans run whichever device is current, which stays so.
TEST(CudaRun, CurrentDeviceIsRestored) {
  FATTN_NEEDS_GPU();
  int count = 0;
  must(cudaGetDeviceCount(&count));
  for (int index = 0; index < count; ++index) {
    for (const Plan& each : every_row(cuda(index))) {
      SCOPED_TRACE(std::string(each.kernel()) + " on device " + std::to_string(index));
      const auto expected = bits_of_one_run(each);
      for (int current = 0; current < count; ++current) {
        Placed placed(each);
        must(cudaSetDevice(current));
        const Plan again = plan(each.problem(), each.device(), each.kernel());
        run(again, placed.buffers, placed.workspace);
        int now = -1;
        must(cudaGetDevice(&now));
        EXPECT_EQ(now, current);
        EXPECT_EQ(finish(placed), expected);
        must(cudaSetDevice(0));
      }
    }
  }
  if (count < 2) std::printf("NOTE: one GPU, so no run from another current device was tried\n");
}

TEST(CudaRun, OtherDevicesPointersAreRefused) {
  FATTN_NEEDS_GPU();
  if (devices().size() < 3) GTEST_SKIP() << "ONE GPU: this test needs two CUDA devices and did not run";
  const Problem problem = parse_problem(kProblems[0]);
  const Plan first = plan(problem, cuda(0), "cuda_reference_forward");
  const Plan second = plan(problem, cuda(1), "cuda_reference_forward");
  Placed here(first), there(second);
  Buffers mixed = here.buffers;
  mixed.k = there.buffers.k;
  EXPECT_EQ(message_of([&] { run(first, mixed, here.workspace); }).find("k = "), 0u);
  EXPECT_EQ(message_of([&] { run(first, here.buffers, there.workspace); }).find("workspace"), 0u);
}

TEST(CudaRun, HostPointersAreRefused) {
  FATTN_NEEDS_GPU();
  for (const Plan& each : every_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    Placed placed(each);
    const auto refuse = [&](const char* name, auto& member) {
      using Pointer = std::remove_reference_t<decltype(member)>;
      const Pointer good = member;
      void *host = ::operator new(1 << 20, std::align_val_t(256)), *pinned = nullptr;
      must(cudaMallocHost(&pinned, 1 << 20));
      for (void* bad : {host, pinned}) {
        member = static_cast<Pointer>(bad);
        const std::string message = message_of([&] { run(each, placed.buffers, placed.workspace); });
        EXPECT_EQ(message.find(name), 0u) << message;
      }
      member = good;
      ::operator delete(host, std::align_val_t(256));
      cudaFreeHost(pinned);
    };
    refuse("q", placed.buffers.q);
    refuse("v", placed.buffers.v);
    refuse("lse", placed.buffers.lse);
    refuse("o", placed.buffers.o);
    if (each.problem().pass == Pass::backward) refuse("dk", placed.buffers.dk);
    alignas(256) static char memory[1 << 10];
    const std::string message = message_of([&] { run(each, placed.buffers, {memory, each.workspace_bytes()}); });
    EXPECT_EQ(message.find("workspace"), 0u) << message;
  }
}

TEST(CudaRun, DevicePointersAreRefusedByCpuPlans) {
  FATTN_NEEDS_GPU();
  const Problem problem = parse_problem(kProblems[0]);
  const Plan host_plan = plan(problem, cpu(), "reference_forward_fp64");
  Placed host(host_plan), device(plan(problem, cuda(), "cuda_reference_forward"));
  Buffers mixed = host.buffers;
  mixed.k = device.buffers.k;
  EXPECT_EQ(message_of([&] { run(host_plan, mixed, host.workspace); }).find("k = "), 0u);
}

TEST(CudaRun, MisalignedAndMissingAreRefused) {
  FATTN_NEEDS_GPU();
  for (const Plan& each : every_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    Placed placed(each);
    Buffers bad = placed.buffers;
    bad.v = static_cast<const char*>(bad.v) + 2;
    EXPECT_EQ(message_of([&] { run(each, bad, placed.workspace); }).find("v = "), 0u);
    bad = placed.buffers;
    bad.k = nullptr;
    EXPECT_EQ(message_of([&] { run(each, bad, placed.workspace); }).find("k = "), 0u);
    if (each.workspace_bytes() > 0) {
      Workspace small = placed.workspace;
      --small.bytes;
      message_of([&] { run(each, placed.buffers, small); }, Status::workspace_too_small);
      Workspace shifted = placed.workspace;
      shifted.data = static_cast<char*>(shifted.data) + 8;
      message_of([&] { run(each, placed.buffers, shifted); }, Status::workspace_too_small);
    }
  }
}

verify::DataOptions packed_lengths(std::vector<std::int64_t> lengths_q, std::vector<std::int64_t> lengths_k) {
  verify::DataOptions options;
  options.lengths_q = std::move(lengths_q);
  options.lengths_k = options.used_k = std::move(lengths_k);
  return options;
}

// A captured graph reads the lengths when it runs, not when it was captured.
TEST(CudaRun, ReplayReadsNewLengths) {
  FATTN_NEEDS_GPU();
  for (const Plan& each : every_packed_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    Placed before(each, packed_lengths({128, 0, 30}, {100, 20, 80}));
    Placed after(each, packed_lengths({20, 128, 128}, {1, 128, 0}));
    const Streams streams(1);
    must(cudaDeviceSynchronize());
    run(each, after.buffers, after.workspace);
    const auto expected = finish(after);

    // The graph of `before`, whose memory then gets the data of `after`.
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    FATTN_CUDA_OK(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeGlobal));
    run(each, before.buffers, before.workspace, streams[0]);
    FATTN_CUDA_OK(cudaStreamEndCapture(streams[0], &graph));
    FATTN_CUDA_OK(cudaGraphInstantiate(&executable, graph, 0));
    FATTN_CUDA_OK(cudaGraphLaunch(executable, streams[0]));
    finish(before);
    before.copy_inputs_from(after);
    FATTN_CUDA_OK(cudaGraphLaunch(executable, streams[0]));
    must(cudaDeviceSynchronize());
    before.outputs.fetch();
    std::vector<std::vector<std::byte>> bits;
    for (const verify::Tensor& tensor : before.outputs.tensors()) bits.push_back(tensor.bytes());
    EXPECT_EQ(bits, expected);
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
  }
}

// Element offsets beyond 2^31: rows of q and o lie 2^24 elements apart. Fewer would go to rows with heads side by side.
TEST(CudaRun, OffsetsBeyond32Bits) {
  FATTN_NEEDS_GPU();
  for (const Plan& own : every_row()) {
    if (own.problem().pass != Pass::forward) continue;
    SCOPED_TRACE(own.kernel());
    Problem near = own.problem(), far = near;
    constexpr std::int64_t kRows = 130, kStep = std::int64_t{1} << 24;
    near.seqlen_q = far.seqlen_q = kRows;
    far.strides.q = far.strides.o = Strides{kRows * kStep, kStep, far.head_dim, 1};
    const auto rows = static_cast<std::size_t>(kRows * far.batch);
    const auto row_bytes = static_cast<std::size_t>(far.heads_q * far.head_dim) * 2;
    const std::size_t bytes = (rows - 1) * kStep * 2 + row_bytes;
    std::size_t free = 0, total = 0;
    must(cudaMemGetInfo(&free, &total));
    if (free < 2 * bytes + (std::size_t{1} << 30)) GTEST_SKIP() << "this test needs 24 GiB of device memory";
    const Plan near_plan = plan(near, cuda(), own.kernel()), far_plan = plan(far, cuda(), own.kernel());
    Placed placed(near_plan);
    run(near_plan, placed.buffers, placed.workspace);
    const auto expected = finish(placed);

    Buffers buffers = placed.buffers;
    void *q = nullptr, *o = nullptr;
    FATTN_CUDA_OK(cudaMalloc(&q, bytes));
    FATTN_CUDA_OK(cudaMalloc(&o, bytes));
    FATTN_CUDA_OK(cudaMemcpy2D(q, kStep * 2, buffers.q, row_bytes, row_bytes, rows, cudaMemcpyDeviceToDevice));
    buffers.q = q;
    buffers.o = o;
    const GuardedWorkspace workspace(far_plan);
    run(far_plan, buffers, workspace);
    FATTN_CUDA_OK(cudaMemcpy2D(placed.buffers.o, row_bytes, o, kStep * 2, row_bytes, rows, cudaMemcpyDeviceToDevice));
    EXPECT_EQ(finish(placed), expected);
    cudaFree(q);
    cudaFree(o);
  }
}

// Lengths that lie: whatever is computed, nothing outside the buffers is touched, and validate_device names the lie.
TEST(CudaRun, LyingLengths) {
  FATTN_NEEDS_GPU();
  struct Lie {
    const char* name;
    std::vector<std::int32_t> cu_q, cu_k, used;
  };
  const std::int32_t huge = 2147483647;
  const Lie lies[] = {
      {"cu_seqlens_q[0]", {7, 20, 40, 300}, {0, 50, 100, 200}, {20, 20, 20}},
      {"cu_seqlens_q[1]", {0, huge, huge, huge}, {0, 50, 100, 200}, {1, 1, 1}},
      {"cu_seqlens_q[2]", {0, 100, 40, 100}, {0, 50, 100, 200}, {1, 1, 1}},
      {"cu_seqlens_k[1]", {0, 100, 200, 300}, {0, -huge, 5, huge}, {1, 1, 1}},
      {"cu_seqlens_k[3]", {0, 100, 200, 300}, {0, 100, 180, 201}, {1, 1, 1}},
      {"seqused_k[1]", {0, 100, 200, 300}, {0, 100, 200, 200}, {100, huge, 0}},
      {"seqused_k[2]", {0, 100, 200, 300}, {0, 100, 150, 200}, {100, 50, -3}},
  };
  for (const Plan& each : every_packed_row()) {
    for (const Lie& lie : lies) {
      SCOPED_TRACE(std::string(each.kernel()) + ", " + lie.name);
      Placed placed(each, packed_lengths({100, 100, 100}, {100, 50, 50}));
      verify::PlacedMemory cu_q(each.device(), 16, 16), cu_k(each.device(), 16, 16), used(each.device(), 12, 16);
      cu_q.upload(lie.cu_q.data());
      cu_k.upload(lie.cu_k.data());
      used.upload(lie.used.data());
      Buffers buffers = placed.buffers;
      buffers.cu_seqlens_q = static_cast<const std::int32_t*>(cu_q.data());
      buffers.cu_seqlens_k = static_cast<const std::int32_t*>(cu_k.data());
      buffers.seqused_k = static_cast<const std::int32_t*>(used.data());
      EXPECT_EQ(message_of([&] { validate_device(each, buffers); }).find(lie.name), 0u);
      run(each, buffers, placed.workspace);
      finish(placed);
      EXPECT_NO_THROW(validate_device(each, placed.buffers));
    }
  }
}

}  // namespace
}  // namespace fattn::test
