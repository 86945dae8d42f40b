// SPDX-License-Identifier: Apache-2.0
// The oracle against PyTorch float64: golden/torch_fp64.txt, written by scripts/make_torch_golden.py.
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <map>

#include "reference/support.hpp"

namespace fattn {
namespace {

struct Golden {
  std::string line;
  std::map<std::string, std::vector<double>> outputs;
};

std::vector<Golden> read_golden() {
  std::ifstream file(FATTN_SOURCE_DIR "/tests/reference/golden/torch_fp64.txt");
  std::vector<Golden> all;
  std::string word;
  while (file >> word) {
    if (word == "#") {
      std::getline(file, word);
    } else if (word == "case") {
      std::getline(file, all.emplace_back().line);
    } else {
      std::size_t count = 0;
      file >> count;
      std::vector<double>& values = all.back().outputs[word];
      for (double value; values.size() < count && file >> value;) values.push_back(value);
      if (values.size() != count) throw std::runtime_error("torch_fp64.txt is cut off");
    }
  }
  return all;
}

// As in the script: multiples of 1/512 in [-2, 2).
void fill(verify::Tensor& tensor) {
  std::uint32_t state = 0;
  for (const char letter : tensor.name()) state = state * 31 + static_cast<unsigned char>(letter);
  std::vector<double> values;
  for (std::uint32_t index = 0; index < tensor.elements(); ++index) {
    std::uint32_t x = index * 2654435761u + state * 40503u + 12345u;
    x = (x ^ x >> 15) * 2246822519u;
    x = (x ^ x >> 13) * 3266489917u;
    values.push_back((x >> 16) % 2048 / 512.0 - 2);
  }
  tensor.set_values(values);
}

void fill_inputs(verify::CaseData& data) {
  const Problem& problem = data.problem();
  for (const char* name : {"q", "k", "v"}) fill(data.tensor(name));
  if (problem.score.bias) fill(data.tensor("bias"));
  if (problem.score.alibi != Alibi::none) fill(data.tensor("alibi_slopes"));
  if (problem.sinks) fill(data.tensor("sinks"));
  if (problem.pass != Pass::backward) return;
  fill(data.tensor("dout"));
  if (problem.dlse) fill(data.tensor("dlse"));
}

void expect_near(const verify::CaseOutputs& outputs, const Golden& golden) {
  for (const verify::Tensor& tensor : outputs.tensors()) {
    if (tensor.name() == "lse" && !golden.outputs.contains("lse")) continue;
    const std::vector<double>& expected = golden.outputs.at(tensor.name());
    const std::vector<double> values = tensor.values();
    ASSERT_EQ(values.size(), expected.size()) << tensor.name();
    // lse, dbias and dsink are stored in fp32.
    const double tolerance = tensor.dtype() == DType::fp32 ? 0x1p-23 : 1e-13;
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], expected[i], tolerance * (1 + std::fabs(expected[i]))) << tensor.name() << " at " << i;
    }
  }
}

TEST(Golden, OracleAgreesWithPyTorch) {
  const std::vector<Golden> all = read_golden();
  ASSERT_GE(all.size(), 10u);
  for (const Golden& golden : all) {
    SCOPED_TRACE(golden.line);
    const Problem problem = parse_problem(golden.line);
    verify::CaseData forward(forward_of(problem), cpu(1));
    fill_inputs(forward);
    const verify::CaseOutputs result = run_row(forward, "reference_forward_fp64");
    expect_near(result, golden);

    verify::CaseData backward(problem, cpu(1));
    fill_inputs(backward);
    backward.set_forward(result.tensor("o"), result.tensor("lse"));
    expect_near(run_row(backward, "reference_backward_fp64"), golden);
  }
}

}  // namespace
}  // namespace fattn
