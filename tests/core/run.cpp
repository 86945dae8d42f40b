// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <vector>

#include "core/allocations.hpp"
#include "core/expect_error.hpp"
#include "core/fake_rows.hpp"
#include "fattn/attention.hpp"

namespace fattn {
namespace {

// Memory that any pointer of Buffers may point at; the fake rows touch none of it.
constexpr std::size_t kPlace = 1 << 16;
alignas(4096) char memory[8 * kPlace];

template <class T = void>
T* at(std::size_t offset = 0) {
  return reinterpret_cast<T*>(memory + offset);
}

// Inputs may share memory, outputs not.
Buffers forward_buffers() { return {.q = at(), .k = at(), .v = at(), .o = at(kPlace)}; }
Buffers backward_buffers() {
  return {.q = at(),
          .k = at(),
          .v = at(),
          .o = at(4 * kPlace),
          .lse = at<float>(5 * kPlace),
          .dout = at(),
          .dq = at(kPlace),
          .dk = at(2 * kPlace),
          .dv = at(3 * kPlace)};
}

void run_text(const char* problem, const Buffers& buffers, Stream stream = {}) {
  run(fake_plan(problem), buffers, {}, stream);
}

void expect_refused(const char* problem, const Buffers& buffers, std::vector<std::string> parts) {
  parts.emplace_back("nearest: ");
  const int before = fake::runs;
  expect_error(Status::invalid_argument, parts, [&] { run_text(problem, buffers); });
  EXPECT_EQ(fake::runs, before) << "the kernel ran all the same";
}

TEST(Run, ReachesTheKernel) {
  const int before = fake::runs;
  run_text("fwd sq8 d128", forward_buffers());
  run_text("bwd sq8 d128", backward_buffers());
  EXPECT_EQ(fake::runs, before + 2);
}

TEST(Run, AllocatesNothing) {
  fake::workspace_bytes = 256;
  const Plan plan =
      fake_plan("bwd b2 hq4 hk2 sq8 sk9 d128 tq16 tk18 seqused=qk causal bias=hqk alibi sinks dlse dbias dsink");
  fake::workspace_bytes = 0;
  const std::int32_t cu_q[] = {0, 8, 16}, cu_k[] = {0, 9, 18}, used[] = {8, 8};
  Buffers buffers = backward_buffers();
  buffers.dlse = at<float>();
  buffers.dbias = at<float>(6 * kPlace);
  buffers.dsink = at<float>(7 * kPlace);
  buffers.bias = at();
  buffers.alibi_slopes = buffers.sinks = at<float>();
  buffers.cu_seqlens_q = cu_q;
  buffers.cu_seqlens_k = cu_k;
  buffers.seqused_q = buffers.seqused_k = used;
  const Workspace workspace{at(7 * kPlace + 4096), 256};
  const int runs = fake::runs;
  const long before = allocations();
  run(plan, buffers, workspace);
  const long after = allocations();
  EXPECT_EQ(after - before, 0);
  EXPECT_EQ(fake::runs, runs + 1);
  { const std::string counted(100, 'x'); }
  EXPECT_GT(allocations(), after) << "the counter does not count";
}

TEST(Run, MissingBuffers) {
  const auto without = [](auto field, Buffers buffers) {
    buffers.*field = nullptr;
    return buffers;
  };
  expect_refused("fwd sq8 d128", without(&Buffers::q, forward_buffers()), {"q = null"});
  expect_refused("fwd sq8 d128", without(&Buffers::k, forward_buffers()), {"k = null"});
  expect_refused("fwd sq8 d128", without(&Buffers::v, forward_buffers()), {"v = null"});
  expect_refused("fwd sq8 d128", without(&Buffers::o, forward_buffers()), {"o = null"});
  expect_refused("bwd sq8 d128", without(&Buffers::lse, backward_buffers()), {"lse = null"});
  expect_refused("bwd sq8 d128", without(&Buffers::dout, backward_buffers()), {"dout = null"});
  expect_refused("bwd sq8 d128", without(&Buffers::dq, backward_buffers()), {"dq = null"});
  expect_refused("bwd sq8 d128", without(&Buffers::dk, backward_buffers()), {"dk = null"});
  expect_refused("bwd sq8 d128", without(&Buffers::dv, backward_buffers()), {"dv = null"});
}

TEST(Run, EveryOptionNeedsItsBuffer) {
  const std::pair<const char*, const char*> forward[] = {{"lse", "lse"},
                                                         {"max_logit", "max_logit"},
                                                         {"tq8", "cu_seqlens_q"},
                                                         {"tk8", "cu_seqlens_k"},
                                                         {"seqused=q", "seqused_q"},
                                                         {"seqused=k", "seqused_k"},
                                                         {"bias=1", "bias"},
                                                         {"alibi", "alibi_slopes"},
                                                         {"sinks", "sinks"},
                                                         {"documents", "document_q"},
                                                         {"prefix", "prefix"},
                                                         {"block_sparse=8,8", "block_offsets"},
                                                         {"dropout=0.5", "dropout_seed"},
                                                         {"e4m3 descale=tensor", "q_descale"}};
  for (const auto& [word, buffer] : forward) {
    expect_refused(("fwd sq8 d128 " + std::string(word)).c_str(), forward_buffers(), {std::string(buffer) + " = null"});
  }
  const std::pair<const char*, const char*> backward[] = {
      {"dlse", "dlse"}, {"sinks dsink", "dsink"}, {"bias=1 dbias", "dbias"}};
  for (const auto& [word, buffer] : backward) {
    Buffers buffers = backward_buffers();
    if (std::string(buffer) == "dbias") buffers.bias = at();
    if (std::string(buffer) == "dsink") buffers.sinks = at<float>();
    expect_refused(("bwd sq8 d128 " + std::string(word)).c_str(), buffers, {std::string(buffer) + " = null"});
  }
  fake::workspace_bytes = 0;
  const std::pair<const char*, const char*> decode[] = {
      {"paged=16,4", "page_table"}, {"append=1", "k_new"}, {"leftpad", "leftpad"}, {"rotary=64", "rotary_cos"}};
  for (const auto& [word, buffer] : decode) {
    const Plan plan = fake_plan("decode sq1 sk8 d128 " + std::string(word), cpu(1), "reference_decode");
    expect_error(Status::invalid_argument, {std::string(buffer) + " = null"},
                 [&] { run(plan, forward_buffers(), {}); });
  }
}

TEST(Run, BuffersTheProblemDoesNotSpeakOf) {
  const auto with = [](auto field, auto* value) {
    Buffers buffers = forward_buffers();
    buffers.*field = value;
    return buffers;
  };
  expect_refused("fwd sq8 d128", with(&Buffers::bias, at()), {"bias is given"});
  expect_refused("fwd sq8 d128", with(&Buffers::lse, at<float>()), {"lse is given"});
  expect_refused("fwd sq8 d128", with(&Buffers::sinks, at<float>()), {"sinks is given"});
  expect_refused("fwd sq8 d128", with(&Buffers::alibi_slopes, at<float>()), {"alibi_slopes is given"});
  expect_refused("fwd sq8 d128", with(&Buffers::cu_seqlens_q, at<std::int32_t>()), {"cu_seqlens_q is given"});
  expect_refused("fwd sq8 d128", with(&Buffers::block_mask, at<std::uint32_t>()), {"block_mask is given"});
  // One struct may serve both passes of a training step.
  EXPECT_NO_THROW(run_text("fwd sq8 d128 lse", backward_buffers()));
}

TEST(Run, EmptyTensorsMayBeNull) {
  Buffers buffers = forward_buffers();
  buffers.k = buffers.v = nullptr;
  EXPECT_NO_THROW(run_text("fwd sq8 sk0 d128", buffers));
  EXPECT_NO_THROW(run_text("fwd sq8 sk0 d128 bias=qk", buffers));
  expect_refused("fwd sq8 sk0 d128 bias=q", buffers, {"bias = null"});
}

TEST(Run, Alignment) {
  Buffers buffers = forward_buffers();
  buffers.k = at(8);
  expect_refused("fwd sq8 d128", buffers, {"k = ", "multiple of 16"});
  EXPECT_NO_THROW(run_text("fwd sq8 d128 align=8", buffers));
  buffers = forward_buffers();
  buffers.lse = at<float>(2);
  expect_refused("fwd sq8 d128 lse", buffers, {"lse = ", "multiple of 4"});
}

TEST(Run, Lengths) {
  const std::int32_t good[] = {0, 3, 8}, bad[] = {0, 9, 8};
  Buffers buffers = forward_buffers();
  buffers.cu_seqlens_q = good;
  EXPECT_NO_THROW(run_text("fwd b2 sq8 d128 tq8", buffers));
  buffers.cu_seqlens_q = bad;
  expect_refused("fwd b2 sq8 d128 tq8", buffers, {"cu_seqlens_q[1] = 9", "nearest: 8"});
  const Plan plan = fake_plan("fwd b2 sq8 d128 tq8");
  expect_error(Status::invalid_argument, {"cu_seqlens_q[1] = 9"}, [&] { validate_device(plan, buffers); });
}

TEST(Run, WorkspaceChecks) {
  fake::workspace_bytes = 512;
  const Plan plan = fake_plan("fwd sq8 d128");
  fake::workspace_bytes = 0;
  const Buffers buffers = forward_buffers();
  EXPECT_NO_THROW(run(plan, buffers, {at(2 * kPlace), 512}));
  expect_error(Status::workspace_too_small, {"511 bytes", "nearest: 512"}, [&] { run(plan, buffers, {at(), 511}); });
  expect_error(Status::workspace_too_small, {"0 bytes", "512"}, [&] { run(plan, buffers, {nullptr, 512}); });
  expect_error(Status::workspace_too_small, {"multiple of 256"}, [&] { run(plan, buffers, {at(128), 512}); });
}

// An array without elements may be null: factors by blocks of no keys.
TEST(Run, FactorsOfNoKeysMayBeNull) {
  Buffers buffers = forward_buffers();
  buffers.q_descale = at<float>();
  EXPECT_NO_THROW(run_text("fwd sq8 sk0 d128 e4m3 descale=block,4,4", buffers));
  expect_refused("fwd sq8 sk0 d128 e4m3 descale=head", buffers, {"k_descale = null"});
}

TEST(Run, DevicesAndStreams) {
  expect_error(Status::device_not_present, {"NVIDIA H100", "only described"},
               [] { run(fake_plan("fwd sq8 d128", h100()), forward_buffers(), {}); });
  expect_error(Status::invalid_argument, {"CUDA stream", "cpu"},
               [] { run_text("fwd sq8 d128", forward_buffers(), at<CUstream_st>()); });
  Device here = h100();
  here.index = 0;
  const Plan plan = fake_plan("fwd sq8 d128", here);
  class : public Executor {
    int concurrency() const override { return 1; }
    void parallel_for(std::int64_t, void (*)(void*, std::int64_t, int), void*) override {}
  } executor;
  expect_error(Status::invalid_argument, {"executor"}, [&] { run(plan, forward_buffers(), {}, Stream(&executor)); });
  // Host memory is no memory of a GPU, with or without one here.
  expect_error(Status::invalid_argument, {"q = ", "nearest: memory of CUDA device 0"},
               [&] { run(plan, forward_buffers(), {}); });
}

TEST(Run, OutputsMustNotOverlap) {
  Buffers buffers = forward_buffers();
  buffers.o = at();
  expect_refused("fwd sq8 d128", buffers, {"o = ", "overlaps q = "});
  buffers.o = at(2032);  // the last elements of q, k and v
  expect_refused("fwd sq8 d128", buffers, {"o = ", "overlaps"});
  buffers.o = at(2048);  // just behind them
  EXPECT_NO_THROW(run_text("fwd sq8 d128", buffers));
  buffers.lse = at<float>(2048 + 2044);
  expect_refused("fwd sq8 d128 lse", buffers, {"lse = ", "overlaps o = "});

  Buffers gradients = backward_buffers();
  gradients.dk = gradients.dq;
  expect_refused("bwd sq8 d128", gradients, {"overlaps dq = "});
  gradients = backward_buffers();
  gradients.dv = at();
  expect_refused("bwd sq8 d128", gradients, {"dv = ", "overlaps"});
}

// Numbers that say where data lie are read while outputs are written.
TEST(Run, OutputsMustNotOverlapLengthsMasksAndSeeds) {
  const std::int32_t lengths[] = {0, 8};
  Buffers buffers = forward_buffers();
  std::memcpy(buffers.o, lengths, sizeof lengths);
  buffers.cu_seqlens_q = at<std::int32_t>(kPlace);
  expect_refused("fwd sq8 d128 tq8", buffers, {"o = ", "overlaps cu_seqlens_q = "});
  buffers = forward_buffers();
  buffers.seqused_k = at<std::int32_t>(kPlace + 4);
  expect_refused("fwd sq8 d128 seqused=k", buffers, {"seqused_k = "});
  buffers = forward_buffers();
  buffers.document_q = buffers.document_k = at<std::int32_t>(kPlace - 4);
  expect_refused("fwd sq8 d128 documents", buffers, {"document_q = "});
  buffers = forward_buffers();
  buffers.prefix = at<std::int32_t>(kPlace + 2044);
  expect_refused("fwd sq8 d128 prefix", buffers, {"prefix = "});
  buffers = forward_buffers();
  buffers.dropout_seed = at<std::uint64_t>(kPlace + 8);
  buffers.dropout_offset = at<std::uint64_t>();
  expect_refused("fwd sq8 d128 dropout=0.5", buffers, {"dropout_seed = "});
}

TEST(Run, TheWorkspaceOverlapsNothing) {
  fake::workspace_bytes = 4096;
  const Plan plan = fake_plan("fwd sq8 d128");
  fake::workspace_bytes = 0;
  EXPECT_NO_THROW(run(plan, forward_buffers(), {at(2 * kPlace), 4096}));
  expect_error(Status::invalid_argument, {"workspace = ", "overlaps o = "}, [&] {
    run(plan, forward_buffers(), {at(kPlace), 4096});
  });
  expect_error(Status::invalid_argument, {"workspace = ", "overlaps"}, [&] {
    run(plan, forward_buffers(), {at(), 4096});
  });
}

// One buffer [batch, seqlen, 3, heads, head_dim] for all gradients: interleaved, and apart.
TEST(Run, InterleavedOutputsAreApart) {
  const char* const together =
      "bwd b2 hq2 hk2 sq4 d16 bf16 dq_strides=384,96,16,1 dk_strides=384,96,16,1 dv_strides=384,96,16,1";
  Buffers buffers = backward_buffers();
  buffers.dk = at(kPlace + 64);
  buffers.dv = at(kPlace + 128);
  EXPECT_NO_THROW(run_text(together, buffers));
  buffers.dv = at(kPlace + 96);  // half way into dk's heads
  expect_refused(together, buffers, {"overlaps"});
}

}  // namespace
}  // namespace fattn
