// SPDX-License-Identifier: Apache-2.0
// The same attention said with another mask: results are those of the other way to say it.
#include "properties/numerics_support.hpp"

namespace fattn::properties {
namespace {

using Ids = std::vector<std::int32_t>;

void require_near_all(const std::string& row, const Outputs& a, const Outputs& b, DType dtype) {
  for (const auto& [name, tensor] : a) require_near(row, name, tensor.values(), b.at(name).values(), dtype);
}

// Data of one problem with the q, k, v, dout of another's, whatever their masks hid.
verify::CaseData with_tensors_of(const Problem& problem, verify::CaseData& other, const verify::DataOptions& options) {
  verify::CaseData data(problem, cpu(2), options);
  for (const char* name : {"q", "k", "v", "dout"}) {
    if (name == std::string("dout") && problem.pass != Pass::backward) continue;
    data.tensor(name).set_values(other.tensor(name).values());
  }
  return data;
}

TEST(OptionProperties, DocumentsAreSequences) {
  holds("documents laid end to end == the packed sequences", [] {
    Problem packed = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    packed.batch = in_range(1, 5);
    verify::DataOptions options = any_data(), one = options;
    Ids ids;
    packed.seqlen_q = 1;
    for (std::int64_t b = 0; b < packed.batch; ++b) {
      // At least one row, so that no total is 0; ids in no order.
      const std::int64_t length = in_range(1, *rc::gen::element<std::int64_t>(5, 60, 130));
      options.lengths_q.push_back(length);
      packed.seqlen_q = std::max(packed.seqlen_q, length);
      ids.insert(ids.end(), static_cast<std::size_t>(length), static_cast<std::int32_t>(b * 7 % 5));
    }
    options.lengths_k = options.lengths_q;
    packed.seqlen_k = packed.seqlen_q;
    packed.total_q = packed.total_k = static_cast<std::int64_t>(ids.size());
    packed.mask.causal = in_range(0, 1) == 0;
    Problem documents = packed;
    documents.batch = 1;
    documents.total_q = documents.total_k = std::nullopt;
    documents.seqlen_q = documents.seqlen_k = static_cast<std::int64_t>(ids.size());
    documents.mask.documents = true;
    for (const std::string& row : rows_for({packed, documents})) {
      verify::CaseData a(packed, cpu(2), options), b = with_tensors_of(documents, a, one);
      b.set_array("document_q", ids);
      b.set_array("document_k", ids);
      require_near_all(row, run_row(a, row), run_row(b, row), packed.dtype);
    }
  });
}

TEST(OptionProperties, PrefixOfNothingIsCausalAndOfAllIsNoMask) {
  holds("prefix(0) == causal, prefix(seqlen_k) == full, bit by bit", [] {
    Problem prefixed = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    prefixed.mask.prefix = true;
    const bool all = in_range(0, 1) == 0;
    Problem plain = prefixed;
    plain.mask = all ? full() : causal();
    const verify::DataOptions options = any_data();
    for (const std::string& row : rows_for({plain, prefixed})) {
      verify::CaseData a(plain, cpu(2), options), b = with_tensors_of(prefixed, a, options);
      b.set_array("prefix", Ids(static_cast<std::size_t>(prefixed.batch),
                                static_cast<std::int32_t>(all ? prefixed.seqlen_k : 0)));
      require_same_bits(row, run_row(a, row), run_row(b, row));
    }
  });
}

// A band written as bits: every block partial, of any size.
TEST(OptionProperties, BlockSparseBitsSayAnyMask) {
  holds("block_sparse(bits of a band) == the band", [] {
    Problem band = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    band.mask = any_band();
    Problem blocks = band;
    const std::int64_t block_q = in_range(1, 70), block_k = in_range(1, 70);
    blocks.mask = block_sparse({.block_q = block_q, .block_k = block_k});
    const std::int64_t rows = (band.seqlen_q + block_q - 1) / block_q,
                       columns = (band.seqlen_k + block_k - 1) / block_k;
    Ids offsets(1, 0), entries;
    std::vector<std::int64_t> bits;
    std::vector<std::uint32_t> mask(static_cast<std::size_t>(rows * columns * block_q * block_k / 32 + 1), 0);
    const verify::SequenceRows sequence{band.seqlen_q, band.seqlen_k, 0, 0};
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) {
        const std::int64_t first = static_cast<std::int64_t>(entries.size()) * block_q * block_k;
        std::int64_t kept = 0;
        for (std::int64_t n = 0; n < block_q * block_k; ++n) {
          const std::int64_t query = row * block_q + n / block_k, key = column * block_k + n % block_k;
          if (query >= band.seqlen_q || key >= band.seqlen_k) continue;
          if (!verify::keeps(band, {}, sequence, 0, 0, query, key)) continue;
          mask[static_cast<std::size_t>((first + n) / 32)] |= 1u << ((first + n) % 32);
          ++kept;
        }
        if (kept == 0) continue;  // absent: skipped
        entries.push_back(static_cast<std::int32_t>(column));
        bits.push_back(kept == block_q * block_k ? -1 : first);
      }
      offsets.push_back(static_cast<std::int32_t>(entries.size()));
    }
    if (entries.empty()) return;
    const verify::DataOptions options = any_data();
    for (const std::string& row : rows_for({band, blocks})) {
      verify::CaseData a(band, cpu(2), options), b = with_tensors_of(blocks, a, options);
      b.set_array("block_offsets", offsets);
      b.set_array("block_columns", entries);
      b.set_array("block_bits", bits);
      b.set_array("block_mask", mask);
      require_near_all(row, run_row(a, row), run_row(b, row), band.dtype);
    }
  });
}

TEST(OptionProperties, DropoutThatDropsNothingIsNone) {
  holds("dropout(2^-60) == no dropout, lse of any dropout == that of none", [] {
    Problem plain = small_problem(*rc::gen::element(Pass::forward, Pass::backward));
    plain.mask = any_band();
    any_score(plain);
    Problem dropped = plain;
    const bool nothing = plain.pass == Pass::backward || in_range(0, 1) == 0;
    dropped.dropout = nothing ? 0x1p-60 : 0.4;
    const verify::DataOptions options = any_data();
    for (const std::string& row : rows_for({plain, dropped})) {
      verify::CaseData a(plain, cpu(2), options), b(dropped, cpu(2), options);
      const Outputs one = run_row(a, row), other = run_row(b, row);
      if (nothing) {
        require_near_all(row, one, other, plain.dtype);
      } else {
        require_near(row, "lse", one.at("lse").values(), other.at("lse").values(), plain.dtype);
      }
    }
  });
}

}  // namespace
}  // namespace fattn::properties
