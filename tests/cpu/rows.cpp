// SPDX-License-Identifier: Apache-2.0
// What the rows promise beside the right numbers, which tests/kernels checks for every row.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "core/allocations.hpp"
#include "cpu/support.hpp"

namespace fattn {
namespace {

// Serves the items last to first on one thread: an order that no pool would choose.
class Backwards final : public Executor {
 public:
  int concurrency() const override { return 1; }
  void parallel_for(std::int64_t items, void (*body)(void*, std::int64_t, int), void* context) override {
    for (std::int64_t item = items; item-- > 0;) body(context, item, 0);
  }
};

// More threads than any plan here was made for, one for each item.
class Crowd final : public Executor {
 public:
  int concurrency() const override { return 64; }
  void parallel_for(std::int64_t items, void (*body)(void*, std::int64_t, int), void* context) override {
    std::vector<std::thread> threads;
    for (std::int64_t item = 0; item < items; ++item) {
      threads.emplace_back([=] { body(context, item, static_cast<int>(item % 64)); });
    }
    for (std::thread& thread : threads) thread.join();
  }
};

const std::vector<std::string> kLines = {
    "fwd b2 hq4 hk2 sq200 sk300 d40 dv24 bf16 causal lse max_logit",
    "fwd b3 hq2 hk1 sq130 sk200 d24 tq250 tk300 fp32 window=60,10 softcap=5 bias=hqk,bf16 alibi sinks lse max_logit",
    "fwd b2 hq4 hk2 sq3 sk2100 d40 dv24 bf16 causal sinks lse max_logit",
    "bwd b2 hq2 hk1 sq500 sk600 d16 dv8 bf16 causal dlse",
    "bwd b3 hq4 hk2 sq130 sk500 d16 tq200 tk600 fp32 window=60,10 softcap=5 bias=qk alibi sinks dlse dbias dsink",
    "bwd b2 hq4 hk2 sq100 sk500 d8 fp16 bias=hk dbias",
    "bwd b2 hq4 hk2 sq500 sk100 d8 fp16 bias=q dbias",
    "bwd b2 hq2 hk2 sq100 sk500 d8 fp16 bias=bhqk dbias",
    "fwd b2 hq2 hk1 sq200 sk300 d24 bf16 prefix documents block_sparse=40,50,batch,heads dropout=0.2 lse max_logit",
    "bwd b2 hq2 hk1 sq200 sk600 d8 fp32 prefix documents block_sparse=40,50,batch,heads dropout=0.2",
};

TEST(CpuRows, SameBitsForAnyThreads) {
  for (const std::string& line : kLines) {
    const verify::CaseData data = case_data(line, cpu(1));
    for (const std::string& target : targets(line)) {
      const std::string row = row_for(target, line);
      const OutputBytes expected = output_bytes(data, row, cpu(1));
      for (const int threads : {2, 3, 7}) EXPECT_TRUE(output_bytes(data, row, cpu(threads)) == expected) << row << line;
      Backwards backwards;
      Crowd crowd;
      EXPECT_TRUE(output_bytes(data, row, cpu(1), &crowd) == expected) << row << line;
      EXPECT_TRUE(output_bytes(data, row, cpu(3), &backwards) == expected) << row << line;
      EXPECT_TRUE(output_bytes(data, row, cpu(3), &crowd) == expected) << row << line;
    }
  }
}

TEST(CpuRows, SeveralRunsOfOnePlanAtATime) {
  for (const std::string& line : {kLines[0], kLines[2]}) {
    const verify::CaseData data = case_data(line, cpu(2));
    const Plan shared = plan(data.problem(), cpu(2), row_for(targets(line).back(), line));
    const auto run_shared = [&] {
      verify::CaseOutputs outputs(data.problem(), cpu(2));
      Buffers buffers = data.placed();
      outputs.attach(buffers);
      verify::run_plan(shared, buffers);
      outputs.fetch();
      OutputBytes bytes;
      for (const verify::Tensor& tensor : outputs.tensors()) bytes.push_back(tensor.bytes());
      return bytes;
    };
    const OutputBytes expected = run_shared();
    std::vector<std::thread> callers;
    std::atomic<int> wrong{0};
    for (int i = 0; i < 4; ++i) callers.emplace_back([&] { wrong += run_shared() != expected; });
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(wrong, 0) << line;
  }
}

// docs/numerics.md, "Bits": a sequence's bits do not depend on the rest of the batch.
TEST(CpuRows, BatchInvariant) {
  for (const std::string& target : targets()) {
    for (const std::string pass : {"fwd", "bwd"}) {
      const std::string rest =
          " hq2 hk1 sq300 sk1000 d16 bf16 causal batch_invariant" + std::string(pass == "fwd" ? " lse" : "");
      const std::string row = row_for(target, pass);
      verify::CaseData batch = case_data(pass + " b3" + rest, cpu(2)), single = case_data(pass + " b1" + rest, cpu(2));
      // The single problem gets the last sequence of the batch.
      std::vector<const char*> inputs = {"q", "k", "v"};
      if (pass == "bwd") inputs.insert(inputs.end(), {"o", "lse", "dout"});
      for (const char* input : inputs) {
        auto &from = batch.tensor(input).bytes(), &to = single.tensor(input).bytes();
        ASSERT_EQ(from.size(), 3 * to.size());
        std::copy(from.end() - static_cast<std::ptrdiff_t>(to.size()), from.end(), to.begin());
      }
      const auto run = [&](verify::CaseData& data) {
        data.place();
        verify::CaseOutputs outputs(data.problem(), cpu(2));
        Buffers buffers = data.placed();
        outputs.attach(buffers);
        verify::run_plan(plan(data.problem(), cpu(2), row), buffers);
        outputs.fetch();
        return outputs;
      };
      const verify::CaseOutputs all = run(batch), one = run(single);
      for (std::size_t i = 0; i < all.tensors().size(); ++i) {
        const auto &from = all.tensors()[i].bytes(), &to = one.tensors()[i].bytes();
        EXPECT_TRUE(std::equal(to.begin(), to.end(), from.end() - static_cast<std::ptrdiff_t>(to.size())))
            << row << ": " << all.tensors()[i].name();
      }
    }
  }
}

// A longer bound on the lengths changes no bit either: seqlen in a packed problem is only a bound.
TEST(CpuRows, LengthBoundsDoNotMatter) {
  for (const std::string pass : {"fwd", "bwd"}) {
    const std::string lengths = " | lengths_q=40,500 lengths_k=1000,260";
    const std::string row = row_for(targets(" fp32").back(), pass);
    const auto bytes = [&](const std::string& bounds) {
      return output_bytes(case_data(pass + " b2 hq2 hk1 d8 fp32 causal tq540 tk1260 " + bounds + lengths, cpu(1)), row,
                          cpu(1));
    };
    EXPECT_TRUE(bytes("sq500 sk1000") == bytes("sq540 sk1260")) << pass;
  }
}

TEST(CpuRows, RunAllocatesNothing) {
  for (const std::string& line : kLines) {
    const verify::CaseData data = case_data(line, cpu(1));
    for (const std::string& target : targets(line)) {
      verify::CaseOutputs outputs(data.problem(), cpu(1));
      Buffers buffers = data.placed();
      outputs.attach(buffers);
      for (const int threads : {1, 3}) {
        const Plan chosen = plan(data.problem(), cpu(threads), row_for(target, line));
        verify::PlacedMemory workspace(cpu(1), chosen.workspace_bytes(), 256);
        const long before = allocations();
        run(chosen, buffers, {workspace.data(), chosen.workspace_bytes()});
        EXPECT_EQ(allocations(), before) << line;
      }
    }
  }
}

// The workspace may hold anything, and what lies around it stays as it is (run_plan looks at its guard zones).
TEST(CpuRows, WorkspaceMayBeDirty) {
  for (const std::string& line : kLines) {
    const verify::CaseData data = case_data(line, cpu(2));
    for (const std::string& target : targets(line)) {
      const Plan chosen = plan(data.problem(), cpu(2), row_for(target, line));
      OutputBytes results;
      for (const int fill : {0x00, 0xff}) {
        verify::CaseOutputs outputs(data.problem(), cpu(2));
        Buffers buffers = data.placed();
        outputs.attach(buffers);
        verify::PlacedMemory workspace(cpu(2), chosen.workspace_bytes(), 256);
        workspace.fill(fill);
        run(chosen, buffers, {workspace.data(), chosen.workspace_bytes()});
        EXPECT_TRUE(workspace.guards_intact()) << line;
        outputs.fetch();
        for (const verify::Tensor& tensor : outputs.tensors()) results.push_back(tensor.bytes());
      }
      const std::size_t half = results.size() / 2;
      for (std::size_t i = 0; i < half; ++i) EXPECT_TRUE(results[i] == results[half + i]) << line;
    }
  }
}

// Memory beside the tensors grows linearly with the lengths: doubling them at most doubles it.
TEST(CpuRows, WorkspaceIsLinear) {
  for (const std::string& target : targets()) {
    for (const std::string pass : {"fwd", "bwd"}) {
      const auto bytes = [&](int seqlen) {
        const std::string line =
            pass + " hq4 hk2 sq" + std::to_string(seqlen) + " sk" + std::to_string(seqlen) + " d64 bf16";
        return plan(parse_problem(line), cpu(2), row_for(target, pass)).workspace_bytes();
      };
      EXPECT_LE(bytes(1 << 20), 2 * bytes(1 << 19)) << pass;
      EXPECT_LE(bytes(1 << 20), std::size_t{1} << 32) << pass;
    }
  }
}

// Shapes at the edges of tiles, panels and blocks, in every dtype, against the fp64 oracle.
TEST(CpuRows, EdgesOfTiles) {
  for (const char* dtype : {"fp32", "bf16", "fp16"}) {
    for (const std::string& target : targets(std::string(" ") + dtype)) {
      for (const auto& [sq, sk, d, dv] :
           {std::tuple{1, 1, 1, 1}, std::tuple{95, 97, 15, 17}, std::tuple{96, 96, 16, 16}, std::tuple{97, 95, 17, 15},
            std::tuple{5, 481, 33, 8}, std::tuple{481, 6, 8, 33}}) {
        for (const std::string pass : {"fwd", "bwd"}) {
          const std::string line = pass + " b2 hq2 hk1 sq" + std::to_string(sq) + " sk" + std::to_string(sk) + " d" +
                                   std::to_string(d) + " dv" + std::to_string(dv) + " " + dtype + " causal" +
                                   (pass == "fwd" ? " lse" : "");
          const verify::CheckResult result = verify::check(parse_problem(line), cpu(2), row_for(target, pass));
          EXPECT_TRUE(result.pass) << result.line() << "\n" << result.table();
        }
      }
    }
  }
}

// Few queries: keys in parts of 960, merged in order.
TEST(CpuRows, KeysInParts) {
  for (const char* line :
       {"fwd b2 hq4 hk2 sq1 sk5000 d64 bf16 lse max_logit", "fwd b1 hq1 hk1 sq1 sk961 d32 fp32 lse",
        "fwd b1 hq2 hk1 sq20 sk3000 d64 bf16 window=1500,0 softcap=20 alibi bias=hqk sinks lse max_logit",
        "fwd b3 hq2 hk1 sq30 sk2000 d64 tq70 tk4000 fp32 causal sinks lse max_logit",
        "fwd b2 hq2 hk2 sq7 sk2500 d32 bf16 seqused=qk dropout=0.3 lse",
        // Keys as they lie, for all heads that share them at once.
        "fwd b2 hq8 hk2 sq3 sk2000 d72 dv40 bf16 causal softcap=20 sinks lse",
        "fwd b1 hq64 hk1 sq2 sk200 d128 fp16 lse", "fwd b2 hq6 hk2 sq8 sk1100 d40 fp32 window=100,0 seqused=qk lse",
        "fwd b3 hq4 hk2 sq8 sk1000 tq15 tk2100 d64 bf16 causal lse out=fp32",
        "fwd b1 hq48 hk2 sq2 sk1100 d136 bf16 window=100,0 sinks lse"}) {
    for (const std::string& target : targets(line)) {
      const verify::CheckResult result = verify::check(parse_problem(line), cpu(2), row_for(target, line));
      EXPECT_TRUE(result.pass) << result.line() << "\n" << result.table();
    }
  }
  const Plan decode = plan(parse_problem("fwd b1 hq2 hk1 sq1 sk5000 d64 fp32"), cpu(4), "cpu_scalar_forward");
  EXPECT_NE(decode.launch_shape().tile.find("keys in parts of 960"), std::string::npos) << decode.launch_shape().tile;
  EXPECT_EQ(decode.launch_shape().grid, 6);  // both heads in one item
  EXPECT_EQ(decode.launch_shape().threads, 4);
}

// A longer bound on the keys makes more parts, not other bits; nor does company in the batch.
TEST(CpuRows, PartsBelongToTheSequence) {
  const std::string words = " hq2 hk1 d8 fp32 causal lse";
  const auto bytes = [&](const std::string& rest) {
    return output_bytes(case_data("fwd" + words + rest, cpu(1)), row_for(targets(" fp32").back(), "fwd"), cpu(1));
  };
  const std::string lengths = " | lengths_q=20,12 lengths_k=2000,900";
  EXPECT_TRUE(bytes(" b2 sq20 sk2000 tq32 tk2900" + lengths) == bytes(" b2 sq30 sk2900 tq32 tk2900" + lengths));
}

TEST(CpuRows, LargestHeadDims) {
  for (const char* line :
       {"fwd hq2 hk1 sq60 sk70 d576 dv512 bf16 causal lse", "bwd hq2 hk1 sq60 sk70 d576 dv512 bf16 causal",
        "fwd sq50 sk50 d257 dv511 fp32 lse", "bwd sq50 sk50 d511 dv257 fp32"}) {
    for (const std::string& target : targets(line)) {
      const verify::CheckResult result = verify::check(parse_problem(line), cpu(1), row_for(target, line));
      EXPECT_TRUE(result.pass) << result.line() << "\n" << result.table();
    }
  }
}

// P = exp(s - lse): with every score near -120, exp(-lse) would overflow.
TEST(CpuRows, VeryNegativeScores) {
  for (const char* dtype : {"fp32", "bf16", "fp16"}) {
    for (const std::string& target : targets(std::string(" ") + dtype)) {
      for (const std::string pass : {"fwd", "bwd"}) {
        const std::string line = pass + " b1 hq2 hk2 sq100 sk120 d32 " + dtype + " bias=hqk | bias_shift=-120";
        const verify::Case one = verify::parse_case(line);
        const verify::CheckResult result =
            verify::check(one.problem, cpu(2), row_for(target, pass), {.data = one.data});
        EXPECT_TRUE(result.pass) << result.line() << "\n" << result.table();
      }
    }
  }
}

// A query that sees one key has P = 1 and dS = 0: dP and delta are summed in the same order and cancel exactly.
TEST(CpuRows, OneVisibleKeyHasNoGradientOfScores) {
  for (const char* dtype : {"fp32", "bf16"}) {
    for (const std::string& target : targets(std::string(" ") + dtype)) {
      const std::string line = std::string("bwd b1 hq1 hk1 sq200 sk200 d64 dv100 ") + dtype + " window=0,0";
      const OutputBytes bytes = output_bytes(case_data(line, cpu(1)), row_for(target, line), cpu(1));
      for (const std::byte byte : bytes[0]) ASSERT_TRUE((byte & std::byte{0x7f}) == std::byte{0}) << line;  // dq: +-0
    }
  }
}

}  // namespace
}  // namespace fattn
