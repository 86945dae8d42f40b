// SPDX-License-Identifier: Apache-2.0
#include "kernels/rows.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "verify/case_line.hpp"
#include "verify/check.hpp"

namespace fattn {
namespace {

// The first line, without the name of the row, which the report has already.
std::string brief(const std::string& reason) {
  const std::size_t colon = reason.find("declines: ");
  const std::string text = colon == reason.npos ? reason : reason.substr(colon + 10);
  return text.substr(0, text.find('\n'));
}

}  // namespace

void PrintTo(const RowAndCases& parameter, std::ostream* out) { *out << parameter.row << " on " << parameter.cases; }

std::vector<RowAndCases> rows_of(DeviceKind kind) {
  std::vector<RowAndCases> all;
  for (const KernelInfo& row : kernels()) {
    if (row.device != kind || !row.compiled) continue;
    for (const char* cases : {"cases", "user_reports"}) all.push_back({row.name, cases});
  }
  return all;
}

std::string name_of(const testing::TestParamInfo<RowAndCases>& info) { return info.param.row + "_" + info.param.cases; }

void Rows::agree_with_the_oracle(const Device& device) {
  const auto [row, file] = GetParam();
  const std::vector<KernelInfo> infos = kernels();
  const KernelInfo& info =
      *std::find_if(infos.begin(), infos.end(), [&](const auto& each) { return each.name == row; });
  int accepted = 0, declined = 0;
  std::map<std::string, int> reasons;
  for (const verify::Case& one : verify::read_cases(FATTN_SOURCE_DIR "/tests/kernels/" + file + ".txt")) {
    if (one.problem.pass != info.pass) continue;
    try {
      plan(one.problem, device, row);
    } catch (const Error& error) {
      ASSERT_EQ(error.status(), Status::unsupported) << error.what();
      ++declined;
      ++reasons[brief(error.what())];
      continue;
    }
    ++accepted;
    const verify::CheckResult result = verify::check(one.problem, device, row, {.data = one.data});
    EXPECT_TRUE(result.pass) << result.table();
  }
  std::printf("%s on %s: %d cases accepted, %d declined\n", row.c_str(), file.c_str(), accepted, declined);
  for (const auto& [reason, count] : reasons) std::printf("  %4d  %s\n", count, reason.c_str());
  const std::pair<const char*, bool> needs[] = {{"cpu_avx2_", device.avx2},
                                                {"cpu_avx512_bf16_", device.avx512_bf16},
                                                {"cpu_avx512_", device.avx512},
                                                {"cpu_amx_", device.amx_bf16}};
  for (const auto& [rows, present] : needs) {
    if (accepted > 0 || !row.starts_with(rows)) continue;
    if (!present) GTEST_SKIP() << "THIS PROCESSOR HAS NO " << rows << "*: " << row << " did not run";
    break;
  }
  // The case list must say something about every row.
  EXPECT_TRUE(accepted > 0 || file != "cases") << row << " declines every case: add cases it is made for";
}

}  // namespace fattn
