// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <new>

#include "core/c_structs.hpp"
#include "core/registry.hpp"
#include "fattn/attention.hpp"
#include "fattn/fattn.h"

struct fattn_plan {
  fattn::Plan plan;
};

namespace fattn {
namespace {

thread_local std::string last_error;

fattn_status failed(Status status, const char* message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();  // no memory for the text; the status still says what happened
  }
  return static_cast<fattn_status>(status);
}

// The threads of a C caller.
class CallersThreads final : public Executor {
 public:
  explicit CallersThreads(const fattn_executor& executor) : executor_(executor) {}
  int concurrency() const override { return executor_.concurrency; }
  void parallel_for(std::int64_t items, void (*body)(void*, std::int64_t, int), void* context) override {
    executor_.parallel_for(executor_.context, items, body, context);
  }

 private:
  fattn_executor executor_;
};

// Exceptions end here.
template <class Body>
fattn_status guarded(Body body) noexcept {
  try {
    body();
    return FATTN_OK;
  } catch (const Error& error) {
    return failed(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return failed(Status::out_of_memory, "host memory is exhausted");
  } catch (const std::exception& error) {
    return failed(Status::internal_error, error.what());
  } catch (...) {
    return failed(Status::internal_error, "unknown exception");
  }
}

void write_text(const std::string& text, char* buffer, std::size_t capacity, std::size_t* needed) {
  if (needed != nullptr) *needed = text.size() + 1;
  if (buffer == nullptr && capacity == 0) return;
  require_pointer("buffer", buffer);
  require(capacity > text.size(), "capacity = {} is too small; nearest: {}", capacity, text.size() + 1);
  std::memcpy(buffer, text.c_str(), text.size() + 1);
}

Stream stream_of(const fattn_plan* plan, void* stream) {
  if (plan->plan.device().kind == DeviceKind::cuda) return static_cast<CUstream_st*>(stream);
  require(stream == nullptr, "stream = {} is given to a cpu plan; nearest: null", stream);
  return nullptr;
}

void create(const Problem& problem, const Device& device, const char* kernel, fattn_plan** to) {
  *to = new fattn_plan{plan(problem, device, kernel == nullptr ? "" : kernel)};
}

template <class T>
void put(const char* name, T* to, T value) {
  require_pointer(name, to);
  *to = value;
}

}  // namespace
}  // namespace fattn

using namespace fattn;

extern "C" {

fattn_status fattn_version(int* major, int* minor, int* patch) {
  return guarded([&] {
    put("major", major, version().major);
    put("minor", minor, version().minor);
    put("patch", patch, version().patch);
  });
}

const char* fattn_last_error(void) { return last_error.c_str(); }
const char* fattn_status_name(fattn_status status) { return to_string(static_cast<Status>(status)); }

fattn_status fattn_problem_init(fattn_problem* problem, size_t struct_size) {
  return guarded([&] { write_struct("problem", default_problem(), default_problem(), problem, struct_size); });
}

fattn_status fattn_problem_from_text(const char* text, fattn_problem* problem, size_t struct_size) {
  return guarded([&] {
    require_pointer("text", text);
    write_struct("problem", to_c(parse_problem(text)), default_problem(), problem, struct_size);
  });
}

fattn_status fattn_device_from_text(const char* text, fattn_device* device, size_t struct_size) {
  return guarded([&] {
    require_pointer("text", text);
    write_struct("device", to_c(parse_device(text)), to_c(Device{}), device, struct_size);
  });
}

fattn_status fattn_problem_validate(const fattn_problem* problem) {
  return guarded([&] { validate(from_c(problem)); });
}

fattn_status fattn_problem_to_text(const fattn_problem* problem, char* buffer, size_t capacity, size_t* needed) {
  return guarded([&] { write_text(to_string(from_c(problem)), buffer, capacity, needed); });
}

fattn_status fattn_plan_create(const fattn_problem* problem, const fattn_device* device, const char* kernel,
                               fattn_plan** plan) {
  return guarded([&] {
    put("plan", plan, static_cast<fattn_plan*>(nullptr));
    create(from_c(problem), from_c(device), kernel, plan);
  });
}

fattn_status fattn_plan_from_text(const char* problem, const char* device, const char* kernel, fattn_plan** plan) {
  return guarded([&] {
    put("plan", plan, static_cast<fattn_plan*>(nullptr));
    require_pointer("problem", problem);
    require_pointer("device", device);
    create(parse_problem(problem), parse_device(device), kernel, plan);
  });
}

fattn_status fattn_plan_destroy(fattn_plan* plan) {
  return guarded([&] { delete plan; });
}

fattn_status fattn_plan_problem(const fattn_plan* plan, fattn_problem* problem, size_t struct_size) {
  return guarded([&] {
    require_pointer("plan", plan);
    write_struct("problem", to_c(plan->plan.problem()), default_problem(), problem, struct_size);
  });
}

fattn_status fattn_plan_kernel(const fattn_plan* plan, const char** name) {
  return guarded([&] {
    require_pointer("plan", plan);
    put("name", name, plan->plan.kernel().data());  // rows are named by literals
  });
}

fattn_status fattn_plan_workspace_bytes(const fattn_plan* plan, size_t* bytes) {
  return guarded([&] {
    require_pointer("plan", plan);
    put("bytes", bytes, plan->plan.workspace_bytes());
  });
}

fattn_status fattn_plan_flops(const fattn_plan* plan, double* flops) {
  return guarded([&] {
    require_pointer("plan", plan);
    put("flops", flops, fattn::flops(plan->plan.problem()));
  });
}

fattn_status fattn_plan_traffic(const fattn_plan* plan, fattn_traffic* traffic, size_t struct_size) {
  return guarded([&] {
    require_pointer("plan", plan);
    const Traffic t = plan->plan.traffic();
    const fattn_traffic c = {sizeof c, t.bytes, t.standard_bytes, t.memory_bytes, t.standard_memory_bytes};
    write_struct("traffic", c, c, traffic, struct_size);
  });
}

fattn_status fattn_plan_explain(const fattn_plan* plan, char* buffer, size_t capacity, size_t* needed) {
  return guarded([&] {
    require_pointer("plan", plan);
    write_text(plan->plan.explain(), buffer, capacity, needed);
  });
}

fattn_status fattn_run(const fattn_plan* plan, const fattn_buffers* buffers, void* workspace, size_t workspace_bytes,
                       void* stream) {
  return guarded([&] {
    require_pointer("plan", plan);
    run(plan->plan, from_c(buffers), {workspace, workspace_bytes}, stream_of(plan, stream));
  });
}

fattn_status fattn_run_on(const fattn_plan* plan, const fattn_buffers* buffers, void* workspace, size_t workspace_bytes,
                          const fattn_executor* executor) {
  return guarded([&] {
    require_pointer("plan", plan);
    const fattn_executor given = read_struct("executor", executor, fattn_executor{});
    require_pointer("executor.parallel_for", given.parallel_for);
    require(given.concurrency >= 1, "executor.concurrency = {} must be at least 1; nearest: 1", given.concurrency);
    CallersThreads threads(given);
    run(plan->plan, from_c(buffers), {workspace, workspace_bytes}, &threads);
  });
}

fattn_status fattn_validate_device(const fattn_plan* plan, const fattn_buffers* buffers, void* stream) {
  return guarded([&] {
    require_pointer("plan", plan);
    validate_device(plan->plan, from_c(buffers), stream_of(plan, stream));
  });
}

fattn_status fattn_kernel_count(size_t* count) {
  return guarded([&] { put("count", count, rows().size()); });
}

fattn_status fattn_kernel_name(size_t index, const char** name, int* compiled) {
  return guarded([&] {
    require(index < rows().size(), "index = {} must be below {}; nearest: {}", index, rows().size(), rows().size() - 1);
    put("name", name, rows()[index].name.data());
    put("compiled", compiled, rows()[index].kernel != nullptr ? 1 : 0);
  });
}

}  // extern "C"
