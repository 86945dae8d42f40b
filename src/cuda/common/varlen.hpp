// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "algebra/host_device.hpp"
#include "algebra/mask_band.hpp"

// Sequences whose lengths only the device knows. Nothing that it says is trusted: all is clamped to the buffers.
namespace fattn::gpu {

// Lengths of the queries, or of the keys.
struct SideLengths {
  const std::int32_t* cu_seqlens;  // [batch + 1]; null: batches lie `seqlen` rows apart
  const std::int32_t* seqused;     // [batch]; null: all rows of a sequence count
  int total;                       // rows of the buffer when packed
  int seqlen;                      // the longest, or each
};

// Rows of one sequence in a buffer.
struct SequenceRows {
  int batch;  // coordinate of the buffer; 0 when packed
  int begin;  // first row; 0 when not packed
  int rows;   // rows that belong to it
  int used;   // of which so many count
};

FATTN_HD SequenceRows sequence_rows(const SideLengths& side, int index) {
  SequenceRows rows{index, 0, side.seqlen, side.seqlen};
  if (side.cu_seqlens != nullptr) {
    rows.batch = 0;
    rows.begin = min_of(max_of(side.cu_seqlens[index], 0), side.total);
    rows.rows = min_of(max_of(side.cu_seqlens[index + 1], rows.begin), side.total) - rows.begin;
    rows.used = min_of(rows.rows, side.seqlen);
  }
  if (side.seqused != nullptr) rows.used = min_of(max_of(side.seqused[index], 0), rows.used);
  return rows;
}

// What lies behind the last packed sequence belongs to none.
FATTN_HD SequenceRows rows_behind(const SideLengths& side, int batch) {
  const int begin = min_of(max_of(side.cu_seqlens[batch], 0), side.total);
  return {0, begin, side.total - begin, 0};
}

struct VarlenLengths {
  int batch;
  SideLengths q;
  SideLengths k;

  // Index `batch` stands for the query rows behind the last packed sequence, which are written as zeros.
  FATTN_HD SequenceRows queries(int index) const {
    return index == batch ? rows_behind(q, batch) : sequence_rows(q, index);
  }
  FATTN_HD SequenceRows keys(int index) const { return index == batch ? SequenceRows{} : sequence_rows(k, index); }
  FATTN_HD int sequences() const { return q.cu_seqlens != nullptr ? batch + 1 : batch; }
};

// Where a value per query row and head lies: lse [batch, heads, seqlen_q] or [heads, total_q].
struct RowLayout {
  std::int64_t batch;
  std::int64_t head;

  FATTN_HD std::int64_t at(int batch_index, int head_index, int row) const {
    return batch_index * batch + head_index * head + row;
  }
};

}  // namespace fattn::gpu
