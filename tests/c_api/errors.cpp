// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "fattn/error.hpp"
#include "fattn/fattn.h"

namespace {

const char* const kProblem = "fwd b1 hq2 hk1 sq3 sk4 d8 fp32";
const char* const kRow = "reference_forward_fp32";

void expect_failed(fattn_status status, fattn_status expected, const std::string& part) {
  EXPECT_EQ(status, expected) << fattn_last_error();
  EXPECT_NE(std::string(fattn_last_error()).find(part), std::string::npos)
      << "no \"" << part << "\" in: " << fattn_last_error();
}

fattn_buffers no_buffers() {
  fattn_buffers buffers = {};
  buffers.struct_size = sizeof buffers;
  return buffers;
}

struct Plan {
  fattn_plan* plan = nullptr;
  explicit Plan(const char* problem, const char* device = "cpu", const char* kernel = kRow) {
    EXPECT_EQ(fattn_plan_from_text(problem, device, kernel, &plan), FATTN_OK) << fattn_last_error();
  }
  ~Plan() { EXPECT_EQ(fattn_plan_destroy(plan), FATTN_OK); }
};

TEST(CApi, StatusesAreThoseOfTheCppInterface) {
  EXPECT_EQ(static_cast<int>(FATTN_INVALID_ARGUMENT), static_cast<int>(fattn::Status::invalid_argument));
  EXPECT_EQ(static_cast<int>(FATTN_UNSUPPORTED), static_cast<int>(fattn::Status::unsupported));
  EXPECT_EQ(static_cast<int>(FATTN_WORKSPACE_TOO_SMALL), static_cast<int>(fattn::Status::workspace_too_small));
  EXPECT_EQ(static_cast<int>(FATTN_DEVICE_ERROR), static_cast<int>(fattn::Status::device_error));
  EXPECT_EQ(static_cast<int>(FATTN_DEVICE_NOT_PRESENT), static_cast<int>(fattn::Status::device_not_present));
  EXPECT_EQ(static_cast<int>(FATTN_OUT_OF_MEMORY), static_cast<int>(fattn::Status::out_of_memory));
  EXPECT_EQ(static_cast<int>(FATTN_IO_ERROR), static_cast<int>(fattn::Status::io_error));
  EXPECT_EQ(static_cast<int>(FATTN_INTERNAL_ERROR), static_cast<int>(fattn::Status::internal_error));
  EXPECT_STREQ(fattn_status_name(FATTN_UNSUPPORTED), "unsupported");
  EXPECT_STREQ(fattn_status_name(FATTN_OK), "ok");
}

TEST(CApi, PlanErrors) {
  fattn_plan* plan = reinterpret_cast<fattn_plan*>(1);
  expect_failed(fattn_plan_from_text("fwd hq32 hk5 sq8 d64", "cpu", nullptr, &plan), FATTN_INVALID_ARGUMENT,
                "heads_kv = 5 must divide heads_q = 32; nearest: 4");
  EXPECT_EQ(plan, nullptr);
  expect_failed(fattn_plan_from_text("fwd casual", "cpu", nullptr, &plan), FATTN_INVALID_ARGUMENT, "causal");
  expect_failed(fattn_plan_from_text(kProblem, "gpu", nullptr, &plan), FATTN_INVALID_ARGUMENT, "'gpu'");
  expect_failed(fattn_plan_from_text(kProblem, "cpu", "nonesuch", &plan), FATTN_INVALID_ARGUMENT, "'nonesuch'");
  expect_failed(fattn_plan_from_text(kProblem, "cpu", "reference_backward_fp32", &plan), FATTN_UNSUPPORTED,
                "a backward row");
  expect_failed(fattn_plan_from_text("fwd sq8 d64 e4m3", "cpu", nullptr, &plan), FATTN_UNSUPPORTED, "no kernel row");
  EXPECT_EQ(plan, nullptr);
}

TEST(CApi, NullPointersAreRefused) {
  fattn_problem problem;
  fattn_plan* plan = nullptr;
  fattn_device device;
  const fattn_buffers buffers = no_buffers();
  const Plan made(kProblem);
  std::size_t size = 0;
  double number = 0;
  int a = 0;
  ASSERT_EQ(fattn_problem_from_text(kProblem, &problem, sizeof problem), FATTN_OK);
  ASSERT_EQ(fattn_device_from_text("cpu", &device, sizeof device), FATTN_OK);
  for (const fattn_status status : {fattn_version(nullptr, &a, &a),
                                    fattn_problem_init(nullptr, sizeof problem),
                                    fattn_problem_from_text(nullptr, &problem, sizeof problem),
                                    fattn_problem_from_text(kProblem, nullptr, sizeof problem),
                                    fattn_device_from_text(nullptr, &device, sizeof device),
                                    fattn_device_from_text("cpu", nullptr, sizeof device),
                                    fattn_problem_validate(nullptr),
                                    fattn_problem_to_text(nullptr, nullptr, 0, &size),
                                    fattn_problem_to_text(&problem, nullptr, 10, &size),
                                    fattn_plan_create(nullptr, &device, nullptr, &plan),
                                    fattn_plan_create(&problem, nullptr, nullptr, &plan),
                                    fattn_plan_create(&problem, &device, nullptr, nullptr),
                                    fattn_plan_from_text(nullptr, "cpu", nullptr, &plan),
                                    fattn_plan_from_text(kProblem, nullptr, nullptr, &plan),
                                    fattn_plan_from_text(kProblem, "cpu", nullptr, nullptr),
                                    fattn_plan_kernel(nullptr, nullptr),
                                    fattn_plan_kernel(made.plan, nullptr),
                                    fattn_plan_workspace_bytes(nullptr, &size),
                                    fattn_plan_workspace_bytes(made.plan, nullptr),
                                    fattn_plan_flops(nullptr, &number),
                                    fattn_plan_flops(made.plan, nullptr),
                                    fattn_plan_problem(nullptr, &problem, sizeof problem),
                                    fattn_plan_problem(made.plan, nullptr, sizeof problem),
                                    fattn_plan_traffic(nullptr, nullptr, 0),
                                    fattn_plan_explain(nullptr, nullptr, 0, &size),
                                    fattn_run(nullptr, &buffers, nullptr, 0, nullptr),
                                    fattn_run(made.plan, nullptr, nullptr, 0, nullptr),
                                    fattn_run(made.plan, &buffers, nullptr, 0, nullptr),
                                    fattn_run_on(made.plan, &buffers, nullptr, 0, nullptr),
                                    fattn_validate_device(nullptr, &buffers, nullptr),
                                    fattn_validate_device(made.plan, nullptr, nullptr),
                                    fattn_kernel_count(nullptr),
                                    fattn_kernel_name(0, nullptr, &a),
                                    fattn_kernel_name(1u << 20, nullptr, &a)}) {
    EXPECT_EQ(status, FATTN_INVALID_ARGUMENT);
  }
  EXPECT_EQ(fattn_plan_destroy(nullptr), FATTN_OK);
}

TEST(CApi, RunErrors) {
  alignas(256) static float data[256] = {};
  const Plan plan(kProblem);
  fattn_buffers buffers = no_buffers();
  buffers.q = buffers.k = buffers.v = data;
  expect_failed(fattn_run(plan.plan, &buffers, nullptr, 0, nullptr), FATTN_INVALID_ARGUMENT, "o = null");
  buffers.o = reinterpret_cast<char*>(data) + 4;
  expect_failed(fattn_run(plan.plan, &buffers, nullptr, 0, nullptr), FATTN_INVALID_ARGUMENT, "multiple of 16");
  buffers.o = data + 64;
  expect_failed(fattn_run(plan.plan, &buffers, nullptr, 0, data), FATTN_INVALID_ARGUMENT, "stream");
  std::size_t bytes = 0;
  ASSERT_EQ(fattn_plan_workspace_bytes(plan.plan, &bytes), FATTN_OK);
  if (bytes > 0) {
    expect_failed(fattn_run(plan.plan, &buffers, data, bytes - 1, nullptr), FATTN_WORKSPACE_TOO_SMALL, "workspace");
  }
  std::vector<char> workspace(bytes + 256);
  const auto address = reinterpret_cast<std::uintptr_t>(workspace.data());
  void* const aligned = workspace.data() + (256 - address % 256);
  EXPECT_EQ(fattn_run(plan.plan, &buffers, aligned, bytes, nullptr), FATTN_OK) << fattn_last_error();
}

// Runs the items backwards on the calling thread, and counts them.
void backwards(void* context, std::int64_t items, void (*body)(void*, std::int64_t, int), void* work) {
  for (std::int64_t item = items; item-- > 0;) body(work, item, 0);
  *static_cast<std::int64_t*>(context) += items;
}

TEST(CApi, RunsOnTheCallersThreads) {
  alignas(256) static float data[512] = {};
  for (int i = 0; i < 256; ++i) data[i] = static_cast<float>(i % 7) - 3;
  const Plan plan(kProblem);
  std::size_t bytes = 0;
  ASSERT_EQ(fattn_plan_workspace_bytes(plan.plan, &bytes), FATTN_OK);
  std::vector<char> workspace(bytes + 256);
  void* const aligned = workspace.data() + (256 - reinterpret_cast<std::uintptr_t>(workspace.data()) % 256);
  fattn_buffers buffers = no_buffers();
  buffers.q = buffers.k = buffers.v = data;
  buffers.o = data + 256;
  ASSERT_EQ(fattn_run(plan.plan, &buffers, aligned, bytes, nullptr), FATTN_OK) << fattn_last_error();
  const std::vector<float> expected(data + 256, data + 512);
  std::fill(data + 256, data + 512, -1.0f);

  std::int64_t items = 0;
  fattn_executor executor = {sizeof executor, 1, backwards, &items};
  ASSERT_EQ(fattn_run_on(plan.plan, &buffers, aligned, bytes, &executor), FATTN_OK) << fattn_last_error();
  EXPECT_GT(items, 0);
  std::size_t written = 0;  // o may be shorter than the array
  while (written < expected.size() && data[256 + written] != -1.0f) ++written;
  EXPECT_GT(written, 0u);
  EXPECT_TRUE(std::equal(data + 256, data + 256 + written, expected.begin()));

  executor.concurrency = 0;
  expect_failed(fattn_run_on(plan.plan, &buffers, aligned, bytes, &executor), FATTN_INVALID_ARGUMENT,
                "concurrency = 0");
  executor = {sizeof executor, 1, nullptr, nullptr};
  expect_failed(fattn_run_on(plan.plan, &buffers, aligned, bytes, &executor), FATTN_INVALID_ARGUMENT, "parallel_for");
  executor.struct_size = 0;
  expect_failed(fattn_run_on(plan.plan, &buffers, aligned, bytes, &executor), FATTN_INVALID_ARGUMENT, "struct_size");
}

TEST(CApi, DescribedDevicesPlanButDoNotRun) {
  fattn_plan* plan = nullptr;
  const fattn_status status = fattn_plan_from_text("fwd b1 hq2 hk2 sq128 sk128 d128 bf16", "h100", nullptr, &plan);
  if (status == FATTN_OK) {
    alignas(256) static char data[256];
    fattn_buffers buffers = no_buffers();
    buffers.q = buffers.k = buffers.v = buffers.o = data;
    expect_failed(fattn_run(plan, &buffers, nullptr, 0, nullptr), FATTN_DEVICE_NOT_PRESENT, "only described");
    fattn_plan_destroy(plan);
  } else {
    expect_failed(status, FATTN_UNSUPPORTED, "not compiled into this library");
  }
}

TEST(CApi, LastErrorBelongsToTheThread) {
  fattn_problem problem;
  expect_failed(fattn_problem_from_text("fwd wrong", &problem, sizeof problem), FATTN_INVALID_ARGUMENT, "'wrong'");
  std::thread([] { EXPECT_STREQ(fattn_last_error(), ""); }).join();
  EXPECT_NE(std::string(fattn_last_error()).find("'wrong'"), std::string::npos);
  ASSERT_EQ(fattn_problem_from_text(kProblem, &problem, sizeof problem), FATTN_OK);  // success leaves it alone
  EXPECT_NE(std::string(fattn_last_error()).find("'wrong'"), std::string::npos);
}

TEST(CApi, TextsSayWhatTheyNeed) {
  fattn_problem problem;
  ASSERT_EQ(fattn_problem_from_text(kProblem, &problem, sizeof problem), FATTN_OK);
  std::size_t needed = 0;
  ASSERT_EQ(fattn_problem_to_text(&problem, nullptr, 0, &needed), FATTN_OK);
  ASSERT_EQ(needed, std::string(kProblem).size() + 1);
  std::vector<char> text(needed, 'x');
  expect_failed(fattn_problem_to_text(&problem, text.data(), needed - 1, &needed), FATTN_INVALID_ARGUMENT, "capacity");
  EXPECT_EQ(text[0], 'x');
  ASSERT_EQ(fattn_problem_to_text(&problem, text.data(), needed, nullptr), FATTN_OK);
  EXPECT_STREQ(text.data(), kProblem);
}

TEST(CApi, KernelsAndNumbers) {
  std::size_t count = 0;
  ASSERT_EQ(fattn_kernel_count(&count), FATTN_OK);
  bool found = false;
  for (std::size_t i = 0; i < count; ++i) {
    const char* name = nullptr;
    int compiled = -1;
    ASSERT_EQ(fattn_kernel_name(i, &name, &compiled), FATTN_OK);
    found = found || (std::string(name) == kRow && compiled == 1);
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(fattn_kernel_name(count, nullptr, nullptr), FATTN_INVALID_ARGUMENT);

  const Plan plan(kProblem);
  double flops = 0;
  ASSERT_EQ(fattn_plan_flops(plan.plan, &flops), FATTN_OK);
  EXPECT_EQ(flops, 2.0 * 2 * 12 * 16);
  fattn_traffic traffic = {};
  ASSERT_EQ(fattn_plan_traffic(plan.plan, &traffic, sizeof traffic), FATTN_OK);
  EXPECT_EQ(traffic.struct_size, sizeof traffic);
  EXPECT_GE(traffic.memory_bytes, (2 * 2 * 3 * 8 + 2 * 4 * 8) * 4);
  EXPECT_GT(traffic.standard_bytes, traffic.standard_memory_bytes);
}

}  // namespace
