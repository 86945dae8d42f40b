// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <thread>

#include "cuda/harness.hpp"

// What docs/api.md promises about run() on a device, for every compiled CUDA row.
namespace fattn::test {
namespace {

// A problem that each row is asked for: the first that it accepts.
constexpr const char* kProblems[] = {
    "fwd b2 hq4 hk2 sq300 sk333 d128 bf16 causal lse",
    "bwd b2 hq4 hk2 sq300 sk333 d128 bf16 causal",
};

std::vector<Plan> every_row() {
  std::vector<Plan> plans;
  for (const KernelInfo& row : kernels()) {
    if (row.device != DeviceKind::cuda || !row.compiled) continue;
    for (const char* text : kProblems) {
      Problem problem = parse_problem(text);
      if (problem.pass == row.pass) plans.push_back(plan(problem, cuda(), row.name));
    }
  }
  return plans;
}

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
    std::vector<std::unique_ptr<Placed>> placed;
    for (int i = 0; i < 4; ++i) placed.push_back(std::make_unique<Placed>(each));
    const Streams streams(4);
    must(cudaDeviceSynchronize());
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        Placed& mine = *placed[static_cast<std::size_t>(i)];
        for (int n = 0; n < 5; ++n) run(each, mine.buffers, mine.workspace, streams[i]);
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
    for (int i = 0; i < 20; ++i) {
      run(each, load.buffers, load.workspace, streams[1]);
      run(each, placed.buffers, placed.workspace, streams[0]);
      if (i % 4 == 3) {
        EXPECT_EQ(finish(placed), expected) << "run " << i;
      }
    }
  }
}

TEST(CudaRun, CurrentDeviceIsRestored) {
  FATTN_NEEDS_GPU();
  int count = 0;
  must(cudaGetDeviceCount(&count));
  for (const Plan& each : every_row()) {
    SCOPED_TRACE(std::string(each.kernel()));
    Placed placed(each);
    for (int current = 0; current < count; ++current) {  // the plan is for device 0
      must(cudaSetDevice(current));
      run(each, placed.buffers, placed.workspace);
      plan(each.problem(), cuda(), each.kernel());
      int now = -1;
      must(cudaGetDevice(&now));
      EXPECT_EQ(now, current);
    }
    must(cudaSetDevice(0));
    finish(placed);
  }
  if (count < 2) std::printf("NOTE: one GPU, so no run from another current device was tried\n");
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
  for (const KernelInfo& row : kernels()) {
    if (row.device != DeviceKind::cuda || !row.compiled) continue;
    const std::string pass = row.pass == Pass::forward ? "fwd" : "bwd";
    const Problem problem = parse_problem(pass + " b3 hq2 hk1 sq128 sk128 tq300 tk200 d128 bf16 causal seqused=k");
    std::optional<Plan> made;
    try {
      made = plan(problem, cuda(), row.name);
    } catch (const Error& error) {
      std::printf("NOTE: %s\n", error.what());  // a row without packed sequences
      continue;
    }
    for (const Lie& lie : lies) {
      SCOPED_TRACE(row.name + ", " + lie.name);
      verify::DataOptions truth;
      truth.lengths_q = {100, 100, 100};
      truth.lengths_k = truth.used_k = {100, 50, 50};
      Placed placed(*made, truth);
      verify::PlacedMemory cu_q(made->device(), 16, 16), cu_k(made->device(), 16, 16), used(made->device(), 12, 16);
      cu_q.upload(lie.cu_q.data());
      cu_k.upload(lie.cu_k.data());
      used.upload(lie.used.data());
      Buffers buffers = placed.buffers;
      buffers.cu_seqlens_q = static_cast<const std::int32_t*>(cu_q.data());
      buffers.cu_seqlens_k = static_cast<const std::int32_t*>(cu_k.data());
      buffers.seqused_k = static_cast<const std::int32_t*>(used.data());
      EXPECT_EQ(message_of([&] { validate_device(*made, buffers); }).find(lie.name), 0u);
      run(*made, buffers, placed.workspace);
      finish(placed);
      EXPECT_NO_THROW(validate_device(*made, placed.buffers));
    }
  }
}

}  // namespace
}  // namespace fattn::test
