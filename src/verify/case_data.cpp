// SPDX-License-Identifier: Apache-2.0
#include "verify/case_data.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "fattn/error.hpp"
#include "verify/random.hpp"

namespace fattn::verify {
namespace {

using std::int64_t;

bool is_of_keys(Operand operand) {
  return operand == Operand::k || operand == Operand::v || operand == Operand::dk || operand == Operand::dv;
}

bool is_packed(const Problem& problem, Operand operand) {
  return (is_of_keys(operand) ? problem.total_k : problem.total_q).has_value();
}

// Lengths that fit: none above `longest`, the sum at most `total`, some empty, some rows left over at the end.
std::vector<int64_t> draw_packed(Random& random, int64_t batch, int64_t longest, int64_t total) {
  std::vector<int64_t> lengths(static_cast<std::size_t>(batch), 0);
  const int64_t wanted = std::min(total, batch * longest);
  int64_t left = batch > 1 && random.between(0, 2) == 0 ? random.between(wanted - wanted / 8, wanted) : wanted;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t low = std::max<int64_t>(0, left - (batch - b - 1) * longest), high = std::min(left, longest);
    int64_t length = random.between(low, high);
    if (low == 0 && random.between(0, 4) == 0) length = 0;
    if (b + 1 == batch) length = high;
    lengths[static_cast<std::size_t>(b)] = length;
    left -= length;
  }
  // The loop favours what comes late; any order is as good.
  for (int64_t b = batch - 1; b > 0; --b) {
    std::swap(lengths[static_cast<std::size_t>(b)], lengths[static_cast<std::size_t>(random.between(0, b))]);
  }
  return lengths;
}

void require_count(const char* name, const std::vector<int64_t>& given, int64_t batch) {
  if (static_cast<int64_t>(given.size()) == batch) return;
  throw Error(Status::invalid_argument, fmt::format("{} has {} entries; batch = {}", name, given.size(), batch));
}

}  // namespace

Index4 lse_extents(const Problem& problem) {
  if (problem.total_q) return {1, problem.heads_q, *problem.total_q, 1};
  return {problem.batch, problem.heads_q, problem.seqlen_q, 1};
}

Index4 bias_extents(const Problem& problem) {
  const Bias& bias = *problem.score.bias;
  return {bias.batch ? problem.batch : 1, bias.heads ? problem.heads_q : 1, bias.queries ? problem.seqlen_q : 1,
          bias.keys ? problem.seqlen_k : 1};
}

Index4 extents_of(const Problem& problem, Operand operand) {
  const bool keys = is_of_keys(operand), packed = is_packed(problem, operand);
  const bool values =
      operand == Operand::v || operand == Operand::o || operand == Operand::dout || operand == Operand::dv;
  return {packed ? 1 : problem.batch,
          packed ? *(keys ? problem.total_k : problem.total_q) : (keys ? problem.seqlen_k : problem.seqlen_q),
          keys ? problem.heads_kv : problem.heads_q, values ? head_dim_v(problem) : problem.head_dim};
}

Index4 strides_of(const Problem& problem, Operand operand) {
  const Strides s = strides(problem, operand);
  return {is_packed(problem, operand) ? 0 : s.batch, s.seqlen, s.head, s.dim};
}

CaseData::CaseData(const Problem& problem, const Device& device, const DataOptions& options)
    : problem_(problem), device_(device), options_(options) {
  draw_lengths();
  draw_arrays();
  draw_tensors();
}

template <class Integer>
void CaseData::add_array(std::string name, const std::vector<Integer>& values, void (*attach)(Buffers&, void*)) {
  if (values.empty()) return;
  const auto* const first = reinterpret_cast<const std::byte*>(values.data());
  arrays_.push_back({std::move(name), {first, first + values.size() * sizeof(Integer)}, sizeof(Integer), attach, {}});
}

const std::vector<std::byte>& CaseData::array(std::string_view name) const {
  for (const ArrayInput& array : arrays_) {
    if (array.name == name) return array.bytes;
  }
  throw Error(Status::invalid_argument, fmt::format("array = {}: {} has none", name, to_string(problem_)));
}

void CaseData::set_bytes(std::string_view name, const void* from, std::size_t bytes) {
  placed_ = false;
  const auto* const first = static_cast<const std::byte*>(from);
  const_cast<std::vector<std::byte>&>(array(name)).assign(first, first + bytes);
}

double CaseData::kept_pairs(int64_t batch) const {
  Problem one = problem_;
  one.batch = 1;
  one.seqlen_q = length_q(batch), one.seqlen_k = length_k(batch);
  const Mask& mask = problem_.mask;
  if (!mask.documents && !mask.prefix && !mask.block_sparse) return visible_pairs(one);
  const int64_t heads = mask.block_sparse.per_head ? problem_.heads_q : 1;
  int64_t count = 0;
  for (int64_t pair = 0; pair < heads * one.seqlen_q * one.seqlen_k; ++pair) {
    const int64_t query = pair / one.seqlen_k % one.seqlen_q, head = pair / one.seqlen_k / one.seqlen_q;
    count += keeps(problem_, drawn_, rows_of(batch), batch, head, query, pair % one.seqlen_k) ? 1 : 0;
  }
  const int64_t alike = problem_.heads_q / heads;
  return static_cast<double>(count * alike);
}

SequenceRows CaseData::rows_of(int64_t batch) const {
  const auto b = static_cast<std::size_t>(batch);
  return {lengths_q_[b], lengths_k_[b], problem_.total_q ? begin_q_[b] : batch * problem_.seqlen_q,
          problem_.total_k ? begin_k_[b] : batch * problem_.seqlen_k};
}

void CaseData::draw_arrays() {
  std::vector<SequenceRows> sequences;
  for (int64_t b = 0; b < problem_.batch; ++b) sequences.push_back(rows_of(b));
  drawn_ = draw_options(problem_, options_.seed, sequences);
  add_array("document_q", drawn_.document_q, [](Buffers& b, void* p) { b.document_q = static_cast<std::int32_t*>(p); });
  add_array("document_k", drawn_.document_k, [](Buffers& b, void* p) { b.document_k = static_cast<std::int32_t*>(p); });
  add_array("prefix", drawn_.prefix, [](Buffers& b, void* p) { b.prefix = static_cast<std::int32_t*>(p); });
  add_array("block_offsets", drawn_.block_offsets,
            [](Buffers& b, void* p) { b.block_offsets = static_cast<std::int32_t*>(p); });
  add_array("block_columns", drawn_.block_columns,
            [](Buffers& b, void* p) { b.block_columns = static_cast<std::int32_t*>(p); });
  add_array("block_bits", drawn_.block_bits, [](Buffers& b, void* p) { b.block_bits = static_cast<int64_t*>(p); });
  add_array("block_mask", drawn_.block_mask,
            [](Buffers& b, void* p) { b.block_mask = static_cast<std::uint32_t*>(p); });
  add_array("dropout_seed", drawn_.dropout_seed,
            [](Buffers& b, void* p) { b.dropout_seed = static_cast<std::uint64_t*>(p); });
  add_array("dropout_offset", drawn_.dropout_offset,
            [](Buffers& b, void* p) { b.dropout_offset = static_cast<std::uint64_t*>(p); });
}

void CaseData::draw_lengths() {
  const int64_t batch = problem_.batch;
  const auto side = [&](const char* name, int64_t longest, const std::optional<int64_t>& total, bool uses_seqused,
                        const std::vector<int64_t>& given, const std::vector<int64_t>& given_used,
                        std::vector<int64_t>& lengths, std::vector<int64_t>& begins, void (*attach_cu)(Buffers&, void*),
                        void (*attach_used)(Buffers&, void*)) {
    Random random(seed_of(options_.seed, name));
    lengths.assign(static_cast<std::size_t>(batch), longest);
    begins.assign(static_cast<std::size_t>(batch), 0);
    if (total) {
      lengths = given.empty() ? draw_packed(random, batch, longest, *total) : given;
      require_count(name, lengths, batch);
      std::vector<std::int32_t> cu_seqlens(1, 0);
      for (int64_t b = 0; b < batch; ++b) {
        begins[static_cast<std::size_t>(b)] = cu_seqlens.back();
        const int64_t length = lengths[static_cast<std::size_t>(b)];
        if (length < 0 || length > longest || cu_seqlens.back() + length > *total) {
          throw Error(Status::invalid_argument,
                      fmt::format("{}: length {} of sequence {} does not fit", name, length, b));
        }
        cu_seqlens.push_back(static_cast<std::int32_t>(cu_seqlens.back() + length));
      }
      add_array(std::string("cu_seqlens of ") + name, cu_seqlens, attach_cu);
    }
    if (!uses_seqused) return;
    if (!given_used.empty()) require_count("seqused", given_used, batch);
    std::vector<std::int32_t> used;
    for (std::size_t b = 0; b < lengths.size(); ++b) {
      const int64_t drawn =
          random.between(0, 3) == 0 ? random.between(0, 1) * lengths[b] : random.between(0, lengths[b]);
      lengths[b] = given_used.empty() ? drawn : std::min(given_used[b], lengths[b]);
      used.push_back(static_cast<std::int32_t>(lengths[b]));
    }
    add_array(std::string("seqused of ") + name, used, attach_used);
  };
  const auto cu_q = [](Buffers& b, void* p) { b.cu_seqlens_q = static_cast<const std::int32_t*>(p); };
  const auto cu_k = [](Buffers& b, void* p) { b.cu_seqlens_k = static_cast<const std::int32_t*>(p); };
  const auto used_q = [](Buffers& b, void* p) { b.seqused_q = static_cast<const std::int32_t*>(p); };
  const auto used_k = [](Buffers& b, void* p) { b.seqused_k = static_cast<const std::int32_t*>(p); };
  side("queries", problem_.seqlen_q, problem_.total_q, problem_.seqused_q, options_.lengths_q, options_.used_q,
       lengths_q_, begin_q_, cu_q, used_q);
  side("keys", problem_.seqlen_k, problem_.total_k, problem_.seqused_k, options_.lengths_k, options_.used_k, lengths_k_,
       begin_k_, cu_k, used_k);
}

Tensor& CaseData::add(Tensor tensor, void (*attach)(Buffers&, void*)) {
  inputs_.push_back({std::move(tensor), attach, nullptr});
  return inputs_.back().tensor;
}

// Which keys some query of the sequence sees, in any head that reads the key head. Written from the text of
// docs/numerics.md, not from the code under test.
std::vector<bool> CaseData::seen_keys(int64_t batch, int64_t head_kv) const {
  const Mask& mask = problem_.mask;
  const int64_t seqlen_q = length_q(batch), seqlen_k = length_k(batch);
  if (mask.documents || mask.prefix || mask.block_sparse) {
    const int64_t group = problem_.heads_q / problem_.heads_kv, heads = mask.block_sparse.per_head ? group : 1;
    const SequenceRows rows = rows_of(batch);
    std::vector<bool> seen(static_cast<std::size_t>(seqlen_k), false);
    for (int64_t key = 0; key < seqlen_k; ++key) {
      for (int64_t pair = 0; pair < heads * seqlen_q && !seen[static_cast<std::size_t>(key)]; ++pair) {
        seen[static_cast<std::size_t>(key)] =
            keeps(problem_, drawn_, rows, batch, head_kv * group + pair / seqlen_q, pair % seqlen_q, key);
      }
    }
    return seen;
  }
  std::vector<int> begins(static_cast<std::size_t>(seqlen_k) + 1, 0);
  for (int64_t query = 0; query < seqlen_q; ++query) {
    const int64_t diagonal = query + seqlen_k - seqlen_q;
    int64_t begin = 0, end = seqlen_k;
    if (mask.causal) end = std::min(end, diagonal + 1);
    if (mask.causal_top_left) end = std::min(end, query + 1);
    if (mask.window_left >= 0) begin = std::max(begin, diagonal - mask.window_left);
    if (mask.window_right >= 0) end = std::min(end, diagonal + mask.window_right + 1);
    if (mask.chunk > 0) {
      const double chunk = std::floor(static_cast<double>(diagonal) / static_cast<double>(mask.chunk));
      begin = std::max(begin, static_cast<int64_t>(chunk) * mask.chunk);
      end = std::min(end, (static_cast<int64_t>(chunk) + 1) * mask.chunk);
    }
    if (begin >= end) continue;
    ++begins[static_cast<std::size_t>(begin)];
    --begins[static_cast<std::size_t>(end)];
  }
  std::vector<bool> seen(static_cast<std::size_t>(seqlen_k));
  int queries = 0;
  for (std::size_t key = 0; key < seen.size(); ++key) seen[key] = (queries += begins[key]) > 0;
  return seen;
}

// Fills the rows that count; rows have a stream of numbers each, so that a row's values do not depend on its
// neighbours.
void CaseData::draw_rows(Operand operand, double factor, void (*attach)(Buffers&, void*)) {
  const std::string name(to_string(operand));
  Tensor& tensor =
      add(Tensor(name, problem_.dtype, extents_of(problem_, operand), strides_of(problem_, operand)), attach);
  const bool keys = is_of_keys(operand), packed = is_packed(problem_, operand), is_k = operand == Operand::k;
  const std::vector<int64_t>& lengths = keys ? lengths_k_ : lengths_q_;
  const std::vector<int64_t>& begins = keys ? begin_k_ : begin_q_;
  const int64_t heads = tensor.extents()[2];
  std::vector<double> row(static_cast<std::size_t>(tensor.row_elements()));
  for (int64_t b = 0; b < problem_.batch; ++b) {
    const int64_t length = lengths[static_cast<std::size_t>(b)];
    const int64_t first = packed ? begins[static_cast<std::size_t>(b)] : b * tensor.extents()[1];
    std::vector<bool> seen;
    for (int64_t h = 0; h < heads; ++h) {
      // Only block-sparse tables tell heads apart.
      if (keys && (h == 0 || problem_.mask.block_sparse)) seen = seen_keys(b, h);
      for (int64_t i = 0; i < length; ++i) {
        if (keys && !seen[static_cast<std::size_t>(i)]) continue;
        const double ramp = is_k ? 1 + options_.k_ramp * static_cast<double>(i) / static_cast<double>(length) : 1;
        Random random(seed_of(options_.seed, name, b, i, h));
        for (double& value : row) value = factor * ramp * random.normal();
        tensor.set_row((first + i) * heads + h, row.data());
      }
    }
  }
}

void CaseData::draw_bias() {
  const Index4 extents = bias_extents(problem_);
  Tensor& bias = add(Tensor("bias", problem_.score.bias->dtype, extents), [](Buffers& b, void* p) { b.bias = p; });
  std::vector<double> row(static_cast<std::size_t>(extents[3]));
  for (int64_t r = 0; r < bias.rows(); ++r) {
    const int64_t slice = r / extents[2] / extents[1], query = r % extents[2];
    // The longest sequence that reads this row.
    int64_t queries = 0, keys = 0;
    for (int64_t b = 0; b < problem_.batch; ++b) {
      if (problem_.score.bias->batch && b != slice) continue;
      queries = std::max(queries, length_q(b));
      if (query < length_q(b) || extents[2] == 1) keys = std::max(keys, length_k(b));
    }
    if (query >= queries) continue;
    Random random(seed_of(options_.seed, "bias", slice, r / extents[2] % extents[1], query));
    for (int64_t j = 0; j < extents[3]; ++j) {
      row[static_cast<std::size_t>(j)] = j < keys || extents[3] == 1 ? random.normal() + options_.bias_shift : NAN;
    }
    bias.set_row(r, row.data());
  }
}

// Factors between 1/2 and 2; those of blocks past the lengths, which no one reads, are NaN.
void CaseData::draw_descales() {
  const Descale& descale = problem_.descale;
  const auto draw = [&](const char* name, int64_t heads, int64_t longest, int64_t block,
                        const std::vector<int64_t>& lengths, void (*attach)(Buffers&, void*)) {
    Index4 extents = {1, 1, 1, 1};
    if (descale.kind != DescaleKind::tensor) extents = {1, problem_.batch, heads, 1};
    if (descale.kind == DescaleKind::block) extents[3] = (longest + block - 1) / block;
    Tensor& tensor = add(Tensor(name, DType::fp32, extents), attach);
    std::vector<double> row(static_cast<std::size_t>(extents[3]));
    for (int64_t r = 0; r < tensor.rows(); ++r) {
      Random random(seed_of(options_.seed, name, r));
      for (std::size_t i = 0; i < row.size(); ++i) {
        const bool read = descale.kind != DescaleKind::block ||
                          static_cast<int64_t>(i) * block < lengths[static_cast<std::size_t>(r / heads)];
        row[i] = read ? std::exp2(2 * random.uniform() - 1) : NAN;
      }
      tensor.set_row(r, row.data());
    }
  };
  draw("q_descale", problem_.heads_q, problem_.seqlen_q, descale.block_q, lengths_q_,
       [](Buffers& b, void* m) { b.q_descale = static_cast<float*>(m); });
  draw("k_descale", problem_.heads_kv, problem_.seqlen_k, descale.block_k, lengths_k_,
       [](Buffers& b, void* m) { b.k_descale = static_cast<float*>(m); });
  draw("v_descale", problem_.heads_kv, problem_.seqlen_k, descale.block_k, lengths_k_,
       [](Buffers& b, void* m) { b.v_descale = static_cast<float*>(m); });
}

void CaseData::draw_tensors() {
  const Problem& p = problem_;
  const auto vector = [&](const char* name, const Index4& extents, void (*attach)(Buffers&, void*), auto value) {
    Tensor& tensor = add(Tensor(name, DType::fp32, extents), attach);
    std::vector<double> values(static_cast<std::size_t>(tensor.elements()));
    Random random(seed_of(options_.seed, name));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(random, static_cast<int64_t>(i));
    tensor.set_values(values);
  };
  draw_rows(Operand::q, options_.q_scale, [](Buffers& b, void* m) { b.q = m; });
  draw_rows(Operand::k, 1, [](Buffers& b, void* m) { b.k = m; });
  draw_rows(Operand::v, 1, [](Buffers& b, void* m) { b.v = m; });
  if (p.score.bias) draw_bias();
  if (p.descale.kind != DescaleKind::none) draw_descales();
  if (p.score.alibi != Alibi::none) {
    const int64_t slices = p.score.alibi == Alibi::per_batch_and_head ? p.batch : 1;
    // The slopes of the ALiBi paper, 2^(-8 (h + 1) / heads), a little apart for each sequence.
    vector(
        "alibi_slopes", {1, 1, slices, p.heads_q},
        [](Buffers& b, void* m) { b.alibi_slopes = static_cast<const float*>(m); },
        [&](Random& random, int64_t i) {
          const double head = static_cast<double>(i % p.heads_q + 1), heads = static_cast<double>(p.heads_q);
          return std::exp2(-8 * head / heads) * (0.75 + 0.5 * random.uniform());
        });
  }
  if (p.sinks) {
    vector(
        "sinks", {1, 1, 1, p.heads_q}, [](Buffers& b, void* m) { b.sinks = static_cast<const float*>(m); },
        [](Random& random, int64_t) { return 2 * random.normal(); });
  }
  if (p.pass != Pass::backward) return;
  draw_rows(Operand::dout, 1, [](Buffers& b, void* m) { b.dout = m; });
  if (p.dlse) {
    vector(
        "dlse", lse_extents(p), [](Buffers& b, void* m) { b.dlse = static_cast<const float*>(m); },
        [](Random& random, int64_t) { return random.normal(); });
  }
  // Results of the forward: set_forward() fills them.
  add(Tensor("o", output_dtype(p), extents_of(p, Operand::o), strides_of(p, Operand::o)),
      [](Buffers& b, void* m) { b.o = m; });
  add(Tensor("lse", DType::fp32, lse_extents(p)), [](Buffers& b, void* m) { b.lse = static_cast<float*>(m); });
}

const Tensor& CaseData::tensor(std::string_view name) const {
  for (const Input& input : inputs_) {
    if (input.tensor.name() == name) return input.tensor;
  }
  throw Error(Status::invalid_argument, fmt::format("tensor = {}: {} has none", name, to_string(problem_)));
}

Tensor& CaseData::tensor(std::string_view name) {
  placed_ = false;
  return const_cast<Tensor&>(std::as_const(*this).tensor(name));
}

void CaseData::for_each_query_row(const std::function<void(int64_t, int64_t)>& visit) const {
  const bool packed = problem_.total_q.has_value();
  for (int64_t b = 0; b < problem_.batch; ++b) {
    const int64_t first = packed ? begin_q_[static_cast<std::size_t>(b)] : b * problem_.seqlen_q;
    for (int64_t i = 0; i < length_q(b); ++i) {
      for (int64_t h = 0; h < problem_.heads_q; ++h) {
        const int64_t lse_row =
            packed ? h * *problem_.total_q + first + i : (b * problem_.heads_q + h) * problem_.seqlen_q + i;
        visit((first + i) * problem_.heads_q + h, lse_row);
      }
    }
  }
}

void CaseData::set_forward(const Tensor& o, const Tensor& lse) {
  Tensor &to_o = tensor("o"), &to_lse = tensor("lse");
  std::vector<double> row(static_cast<std::size_t>(o.row_elements()));
  double value = 0;
  for_each_query_row([&](int64_t o_row, int64_t lse_row) {
    o.get_row(o_row, row.data());
    to_o.set_row(o_row, row.data());
    lse.get_row(lse_row, &value);
    to_lse.set_row(lse_row, &value);
  });
}

Buffers CaseData::masters() const {
  Buffers buffers;
  // Kernels take a const pointer or, for the backward's o and lse, one they only read.
  for (const Input& input : inputs_) input.attach(buffers, const_cast<std::byte*>(input.tensor.bytes().data()));
  for (const ArrayInput& input : arrays_) input.attach(buffers, const_cast<std::byte*>(input.bytes.data()));
  return buffers;
}

void CaseData::place() {
  for (Input& input : inputs_) {
    const std::int64_t alignment = std::max(problem_.alignment, size_of(input.tensor.dtype()));
    input.placed = std::make_unique<PlacedMemory>(device_, input.tensor.bytes().size(), alignment);
    input.placed->upload(input.tensor.bytes().data());
  }
  for (ArrayInput& input : arrays_) {
    const std::int64_t alignment = std::max(problem_.alignment, input.element_bytes);
    input.placed = std::make_unique<PlacedMemory>(device_, input.bytes.size(), alignment);
    input.placed->upload(input.bytes.data());
  }
  placed_ = true;
}

Buffers CaseData::placed() const {
  Buffers buffers;
  for (const Input& input : inputs_) input.attach(buffers, input.placed->data());
  for (const ArrayInput& input : arrays_) input.attach(buffers, input.placed->data());
  return buffers;
}

std::string CaseData::damage() const {
  std::string names;
  const auto look = [&](const std::string& name, const PlacedMemory& placed, const void* master, std::size_t bytes) {
    const std::vector<std::byte> now = placed.download();
    const bool same = std::equal(now.begin(), now.end(), static_cast<const std::byte*>(master));
    if (!same || now.size() != bytes) names += fmt::format("input {} was written; ", name);
    if (!placed.guards_intact()) names += fmt::format("memory around input {} was written; ", name);
  };
  for (const Input& input : inputs_) {
    look(input.tensor.name(), *input.placed, input.tensor.bytes().data(), input.tensor.bytes().size());
  }
  for (const ArrayInput& input : arrays_) look(input.name, *input.placed, input.bytes.data(), input.bytes.size());
  return names;
}

}  // namespace fattn::verify
