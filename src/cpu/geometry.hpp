// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "algebra/dropout.hpp"
#include "algebra/mask_pairs.hpp"
#include "core/lower.hpp"
#include "cpu/rows_source.hpp"
#include "fattn/attention.hpp"

namespace fattn::host {

// One side (queries or keys) of one sequence: rows [begin, begin + length) take part, those up to `end` are written 0.
// Rows count from the first row of the batch entry, or from the first packed row.
struct Rows {
  std::int64_t begin;
  int length;
  std::int64_t end;
};

inline Rows rows_of(std::int64_t batch, std::int64_t batches, std::int64_t longest, std::optional<std::int64_t> total,
                    const std::int32_t* cu_seqlens, const std::int32_t* seqused) {
  Rows rows{0, static_cast<int>(longest), longest};
  if (total) {
    // Clamped to the tensor, so that lengths that lie read and write nothing outside.
    const std::int64_t begin = std::clamp<std::int64_t>(cu_seqlens[batch], 0, *total);
    const std::int64_t end = std::clamp<std::int64_t>(cu_seqlens[batch + 1], begin, *total);
    // Rows past the last sequence are padding of the last one.
    rows = {begin, static_cast<int>(std::min(end - begin, longest)), batch + 1 == batches ? *total : end};
  }
  if (seqused != nullptr) rows.length = std::clamp(seqused[batch], 0, rows.length);
  return rows;
}

// Where the rows of an operand are.
struct Tensor {
  DType dtype;
  std::int64_t element_bytes;
  Strides stride;  // batch is 0 when packed

  Tensor(const Problem& problem, Operand operand) : stride(strides(problem, operand)) {
    const bool keys =
        operand == Operand::k || operand == Operand::v || operand == Operand::dk || operand == Operand::dv;
    const bool input =
        operand == Operand::q || operand == Operand::k || operand == Operand::v || operand == Operand::dout;
    dtype = input ? problem.dtype : output_dtype(problem);
    element_bytes = size_of(dtype);
    if (keys ? problem.total_k.has_value() : problem.total_q.has_value()) stride.batch = 0;
  }

  std::int64_t offset(std::int64_t batch, std::int64_t row, std::int64_t head) const {
    return (batch * stride.batch + row * stride.seqlen + head * stride.head) * element_bytes;
  }
  const void* at(const void* base, std::int64_t batch, std::int64_t row, std::int64_t head) const {
    return static_cast<const char*>(base) + offset(batch, row, head);
  }
  void* at(void* base, std::int64_t batch, std::int64_t row, std::int64_t head) const {
    return static_cast<char*>(base) + offset(batch, row, head);
  }
  RowsSource rows(const void* base, std::int64_t batch, std::int64_t row, std::int64_t head, int count, int columns,
                  const bool* keep = nullptr) const {
    return {at(base, batch, row, head), dtype, stride.seqlen, stride.dim, count, columns, keep};
  }
};

// What becomes of a pair: what vector code compares with.
inline constexpr int kUnseen = 0, kDropped = 1, kKept = 2;

// What marks the pairs of one sequence and query head (cpu/marks.hpp).
struct Marker {
  PairMask mask;
  bool drops;
  DropoutWords words;
  std::uint32_t threshold;
};

// Facts of a problem that both passes use; everything about one run that is not data.
struct Geometry {
  explicit Geometry(const Problem& p)
      : problem(p),
        d(static_cast<int>(p.head_dim)),
        dv(static_cast<int>(head_dim_v(p))),
        group(p.heads_q / p.heads_kv),
        limits(lower_band(p.mask)),
        scale(static_cast<float>(softmax_scale(p))),
        softcap(static_cast<float>(p.score.softcap)),
        hides(p.mask.documents || p.mask.block_sparse),
        drops(p.dropout > 0),
        dropout(DropoutRule::of(p.dropout)),
        // Raw scores go into the softmax as they are, and the scale into its exponent.
        plain(scale > 0 && softcap == 0 && !p.score.bias && p.score.alibi == Alibi::none) {}

  Problem problem;
  int d, dv;
  std::int64_t group;
  BandLimits limits;
  float scale, softcap;
  bool hides;  // documents or block-sparse tables: a pair may be invisible wherever it lies
  bool drops;
  DropoutRule dropout;
  bool plain;

  Band band(const Buffers& buffers, std::int64_t batch, const Rows& queries, const Rows& keys) const {
    return Band::of(limits, queries.length, keys.length, problem.mask.prefix ? buffers.prefix[batch] : 0);
  }
  Marker marker(const Buffers& buffers, std::int64_t batch, std::int64_t head, const Rows& queries,
                const Rows& keys) const {
    Marker marker{{}, drops, {}, dropout.threshold};
    const std::int64_t first_q = (problem.total_q ? 0 : batch * problem.seqlen_q) + queries.begin;
    const std::int64_t first_k = (problem.total_k ? 0 : batch * problem.seqlen_k) + keys.begin;
    if (hides) marker.mask = lower_pairs(problem, buffers).of(batch, head, first_q, first_k);
    if (drops) {
      const auto slice = static_cast<std::uint32_t>(batch * problem.heads_q + head);
      marker.words = DropoutWords::of(*buffers.dropout_seed, *buffers.dropout_offset, slice);
    }
    return marker;
  }

  Rows queries(const Buffers& buffers, std::int64_t batch) const {
    return rows_of(batch, problem.batch, problem.seqlen_q, problem.total_q, buffers.cu_seqlens_q,
                   problem.seqused_q ? buffers.seqused_q : nullptr);
  }
  Rows keys(const Buffers& buffers, std::int64_t batch) const {
    return rows_of(batch, problem.batch, problem.seqlen_k, problem.total_k, buffers.cu_seqlens_k,
                   problem.seqused_k ? buffers.seqused_k : nullptr);
  }
  // lse and dlse: [batch, heads_q, seqlen_q] or [heads_q, total_q]
  std::int64_t lse_offset(std::int64_t batch, std::int64_t row, std::int64_t head) const {
    return problem.total_q ? head * *problem.total_q + row : (batch * problem.heads_q + head) * problem.seqlen_q + row;
  }
  float slope(const Buffers& buffers, std::int64_t batch, std::int64_t head) const {
    if (problem.score.alibi == Alibi::none) return 0;
    return buffers
        .alibi_slopes[(problem.score.alibi == Alibi::per_batch_and_head ? batch * problem.heads_q : 0) + head];
  }

  // Element of bias (and dbias) for a query and a key of one sequence, and the steps to the next ones.
  std::int64_t bias_row_stride() const {
    return problem.score.bias->queries ? (problem.score.bias->keys ? problem.seqlen_k : 1) : 0;
  }
  std::int64_t bias_column_stride() const { return problem.score.bias->keys ? 1 : 0; }
  std::int64_t bias_offset(std::int64_t batch, std::int64_t head, std::int64_t query, std::int64_t key) const {
    const Bias& bias = *problem.score.bias;
    const std::int64_t slice = (bias.batch ? batch * (bias.heads ? problem.heads_q : 1) : 0) + (bias.heads ? head : 0);
    const std::int64_t slice_size = (bias.queries ? problem.seqlen_q : 1) * (bias.keys ? problem.seqlen_k : 1);
    return slice * slice_size + query * bias_row_stride() + key * bias_column_stride();
  }
  RowsSource bias(const Buffers& buffers, std::int64_t batch, std::int64_t head, int query, int key, int rows,
                  int columns) const {
    const DType dtype = problem.score.bias->dtype;
    const char* const first =
        static_cast<const char*>(buffers.bias) + bias_offset(batch, head, query, key) * size_of(dtype);
    return {first, dtype, bias_row_stride(), bias_column_stride(), rows, columns};
  }
};

// Marks which of the keys [key_begin, key_begin + count) some query of [query_begin, query_end) sees. The others are
// packed as zeros, so that NaN in them reaches no output.
inline void mark_seen_keys(const Band& band, int query_begin, int query_end, int key_begin, int count, bool* seen) {
  if (band.chunk == 0 && band.right >= -band.left) {
    // Neighbouring intervals touch: their union is one interval.
    const int begin = band.visible(query_begin).begin, end = band.visible(query_end - 1).end;
    for (int i = 0; i < count; ++i) seen[i] = key_begin + i >= begin && key_begin + i < end;
    return;
  }
  for (int i = 0; i < count; ++i) {
    const TileRange queries = band.tiles_for(key_begin + i, key_begin + i + 1, 1);
    seen[i] = max_of(queries.begin, query_begin) < min_of(queries.end, query_end);
  }
}

// Cuts one block of memory into parts at multiples of 64 bytes; over null memory it only counts.
class Carver {
 public:
  explicit Carver(void* memory) : memory_(static_cast<char*>(memory)) {}
  template <class T>
  T* take(std::int64_t count) {
    char* const part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(part);
  }
  // fp32, or bf16 behind a pointer of the same type.
  float* operand(std::int64_t count, bool bf16) {
    return bf16 ? reinterpret_cast<float*>(take<std::uint16_t>(count)) : take<float>(count);
  }
  std::size_t used() const { return used_; }

 private:
  char* memory_;
  std::size_t used_ = 0;
};

// Of a described machine it may be unknown.
inline std::int64_t l2_bytes(const Device& device) { return device.l2_bytes > 0 ? device.l2_bytes : 1 << 20; }

constexpr std::int64_t ceil_div64(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace fattn::host
