// SPDX-License-Identifier: Apache-2.0
#include "arguments.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <string_view>

#include "fattn/attention.hpp"
#include "fattn/error.hpp"
#include "io/array.hpp"
#include "text.hpp"

namespace fattn::tool {

namespace {

bool looks_like_a_problem(const std::string& argument) {
  const std::string_view word = std::string_view(argument).substr(0, argument.find_first_of(" \t"));
  return word == "fwd" || word == "bwd" || word == "decode" || word.size() != argument.size();
}

}  // namespace

Device device_argument(const std::string& text) {
  if (!text.empty()) return parse_device(text);
  const std::vector<Device> all = devices();
  return all.size() > 1 ? all[1] : all[0];
}

Device present_device_argument(const std::string& text) {
  Device device = device_argument(text);
  if (device.index < 0) refuse(fmt::format("--device = {}: a described device cannot compute; nearest: cpu", text));
  return device;
}

std::vector<verify::Case> case_arguments(const std::vector<std::string>& arguments, std::uint64_t seed) {
  std::vector<verify::Case> cases;
  for (const std::string& argument : arguments) {
    std::error_code error;
    std::vector<verify::Case> more;
    if (looks_like_a_problem(argument)) {
      more.push_back(verify::parse_case(argument));
    } else if (std::filesystem::is_regular_file(argument, error)) {
      more = verify::read_cases(argument);
      if (more.empty()) refuse(fmt::format("{}: no problems in this file", argument));
    } else {
      refuse(fmt::format("{} is neither a file nor a problem, such as \"fwd b1 hq8 hk8 sq1024 sk1024 d64 fp32 causal\"",
                         io::printable(argument)));
    }
    for (verify::Case& each : more) {
      if (each.data.seed == verify::DataOptions{}.seed) each.data.seed = seed;
      for (const double value : {each.data.q_scale, each.data.k_ramp, each.data.bias_shift}) {
        if (!std::isfinite(value)) refuse(fmt::format("{}: {} is not finite", verify::to_line(each), value));
      }
      cases.push_back(std::move(each));
    }
  }
  return cases;
}

std::optional<DType> dtype_argument(const std::string& text) {
  if (text.empty()) return std::nullopt;
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16, DType::fp64}) {
    if (to_string(dtype) == text) return dtype;
  }
  refuse(fmt::format("--dtype = {} is unknown; fp32, bf16, fp16 and fp64 are supported", io::printable(text)));
}

std::vector<std::string> forced_names(const std::vector<std::string>& names, const Problem& problem,
                                      const Device& device) {
  std::vector<std::string> fitting;
  for (const std::string& name : names) {
    const std::string_view row = std::string_view(name).substr(0, name.find('@'));  // the rest is a tile
    bool other_pass = false;
    for (const KernelInfo& kernel : kernels()) other_pass |= kernel.name == row && kernel.pass != problem.pass;
    if (other_pass) continue;
    plan(problem, device, name);
    fitting.push_back(name);
  }
  // plan() says what is wrong with the list.
  if (fitting.empty()) plan(problem, device, fmt::format("{}", fmt::join(names, ",")));
  return fitting;
}

std::vector<Plan> forced_plans(const std::vector<std::string>& names, const Problem& problem, const Device& device) {
  std::vector<Plan> plans;
  for (const std::string& name : forced_names(names, problem, device)) plans.push_back(plan(problem, device, name));
  return plans;
}

Json device_json(const Device& device) {
  Json json = {{"kind", device.kind == DeviceKind::cpu ? "cpu" : "cuda"}, {"name", device.name}};
  json["here"] = device.index >= 0;
  json["memory_bytes"] = device.memory_bytes;
  if (device.kind == DeviceKind::cpu) {
    json["threads"] = device.threads;
    json["avx2"] = device.avx2;
    json["avx512"] = device.avx512;
    json["avx512_bf16"] = device.avx512_bf16;
    json["amx_bf16"] = device.amx_bf16;
  } else {
    json["index"] = device.index >= 0 ? Json(device.index) : Json();
    json["compute_capability"] = device.compute_capability;
    json["sm_count"] = device.sm_count;
    json["shared_memory_per_block"] = device.shared_memory_per_block;
    json["l2_bytes"] = device.l2_bytes;
    json["peak_16bit_tflops"] = device.peak_16bit_tflops > 0 ? Json(device.peak_16bit_tflops) : Json();
    json["memory_gb_per_second"] = device.memory_gb_per_second > 0 ? Json(device.memory_gb_per_second) : Json();
  }
  return json;
}

Json plan_json(const Plan& plan) {
  const LaunchShape& shape = plan.launch_shape();
  const Traffic traffic = plan.traffic();
  Json refusals = Json::array();
  for (const Refusal& each : plan.refusals()) refusals.push_back({{"kernel", each.kernel}, {"reason", each.reason}});
  return {{"problem", to_string(plan.problem())},
          {"direction", to_string(plan.problem().pass)},
          {"device", plan.device().name},
          {"kernel", plan.kernel()},
          {"tile", shape.tile},
          {"grid", shape.grid},
          {"threads", shape.threads},
          {"shared_memory_bytes", shape.shared_memory_bytes},
          {"workspace_bytes", plan.workspace_bytes()},
          {"flops", flops(plan.problem())},
          {"memory_bytes", traffic.memory_bytes},
          {"standard_memory_bytes", traffic.standard_memory_bytes},
          {"traffic_bytes", traffic.bytes},
          {"standard_traffic_bytes", traffic.standard_bytes},
          {"refusals", refusals}};
}

std::string commit() {
  static constexpr std::string_view kCommit =
#include "commit.inc"
      ;
  return std::string(kCommit);
}

std::string version_text() {
  const Version v = version();
  return fmt::format("{}.{}.{}", v.major, v.minor, v.patch);
}

std::string utc_stamp() { return fmt::format("{:%Y%m%dT%H%M%SZ}", fmt::gmtime(std::time(nullptr))); }
std::string utc_date() { return fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr))); }

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void print(const Json& json, int indent) {
  print(json.dump(indent, ' ', false, Json::error_handler_t::replace) + '\n');
}

void refuse(const std::string& reason) { throw Error(Status::invalid_argument, reason); }

}  // namespace fattn::tool
