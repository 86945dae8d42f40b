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

// All of these as in the script.
std::vector<std::uint32_t> hashes(const std::string& name, std::int64_t count) {
  std::uint32_t state = 0;
  for (const char letter : name) state = state * 31 + static_cast<unsigned char>(letter);
  std::vector<std::uint32_t> values;
  for (std::uint32_t index = 0; index < count; ++index) {
    std::uint32_t x = index * 2654435761u + state * 40503u + 12345u;
    x = (x ^ x >> 15) * 2246822519u;
    values.push_back((x ^ x >> 13) * 3266489917u);
  }
  return values;
}

// Multiples of 1/512 in [-2, 2).
void fill(verify::Tensor& tensor) {
  std::vector<double> values;
  for (const std::uint32_t x : hashes(tensor.name(), tensor.elements())) {
    values.push_back((x >> 16) % 2048 / 512.0 - 2);
  }
  tensor.set_values(values);
}

std::vector<std::int32_t> small(const std::string& name, std::int64_t count, std::int64_t below) {
  std::vector<std::int32_t> values;
  for (const std::uint32_t x : hashes(name, count)) values.push_back(static_cast<std::int32_t>((x >> 16) % below));
  return values;
}

// One table for each batch and head: kind 0 is absent, 1 full, 2 partial.
void fill_blocks(verify::CaseData& data) {
  const Problem& p = data.problem();
  const auto [block_q, block_k, per_batch, per_head] = p.mask.block_sparse;
  ASSERT_TRUE(per_batch && per_head);
  const std::int64_t rows = (p.seqlen_q + block_q - 1) / block_q, columns = (p.seqlen_k + block_k - 1) / block_k;
  std::vector<std::int32_t> offsets, entries;
  std::vector<std::int64_t> bits;
  std::int64_t at = 0, next = 0;
  for (const std::int32_t kind : small("block_kind", p.batch * p.heads_q * rows * columns, 3)) {
    const auto entry_count = static_cast<std::int32_t>(entries.size());
    if (at % (rows * columns) == 0) offsets.push_back(entry_count);
    if (kind > 0) {
      entries.push_back(static_cast<std::int32_t>(at % columns));
      bits.push_back(kind == 1 ? -1 : next);
      next += kind == 2 ? block_q * block_k : 0;
    }
    if (++at % columns == 0) offsets.push_back(static_cast<std::int32_t>(entries.size()));
  }
  data.set_array("block_offsets", offsets);
  data.set_array("block_columns", entries);
  data.set_array("block_bits", bits);
  data.set_array("block_mask", hashes("block_mask", 1000));
}

void fill_options(verify::CaseData& data) {
  const Problem& p = data.problem();
  if (p.mask.documents) {
    data.set_array("document_q", small("document_q", p.batch * p.seqlen_q, 3));
    data.set_array("document_k", small("document_k", p.batch * p.seqlen_k, 3));
  }
  if (p.mask.prefix) data.set_array("prefix", small("prefix", p.batch, p.seqlen_k + 1));
  if (p.mask.block_sparse) fill_blocks(data);
  if (p.dropout > 0) {
    data.set_array("dropout_seed", std::vector<std::uint64_t>{0x123456789abcdef0});
    data.set_array("dropout_offset", std::vector<std::uint64_t>{0x0fedcba987654321});
  }
  if (p.descale.kind == DescaleKind::none) return;
  for (const char* name : {"q_descale", "k_descale", "v_descale"}) fill(data.tensor(name));
}

void fill_inputs(verify::CaseData& data) {
  const Problem& problem = data.problem();
  fill_options(data);
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
  ASSERT_GE(all.size(), 18u);
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
