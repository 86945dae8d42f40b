// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/mask_band.hpp"
#include "cuda/common/varlen.hpp"
#include "cuda/sm90/backward_params.hpp"
#include "fattn/tensor.hpp"

namespace fattn::gpu::sm90 {

// A tensor [batch, seqlen, heads, head_dim] of 16-bit elements for ordinary loads and stores.
struct RowTensor {
  void* data;
  Strides strides;
  int chunks;   // rows are read and written 16 bytes at a time; 0: their strides do not allow it
  int columns;  // a multiple of 8
};

// A tile of queries in the workspace: of which sequence, from which of its rows.
struct QueryRows {
  int index;  // of the sequence
  SequenceRows sequence;
  int first;
};

// Where the tiles of m rows of a packed sequence begin. A sequence never needs more than up to the next one's first.
FATTN_HD int first_query_tile(const SequenceRows& sequence, int index, int m) { return sequence.begin / m + index; }

// `batch` counts where queries are not packed. Else the sequence is found by bisection.
FATTN_HD QueryRows query_rows(const VarlenLengths& lengths, int batch, int tile, int m) {
  if (lengths.q.cu_seqlens == nullptr) return {batch, sequence_rows(lengths.q, batch), tile * m};
  int index = 0;
  for (int past = lengths.batch + 1; past - index > 1;) {
    const int middle = (index + past) / 2;
    const int begin = min_of(max_of(lengths.q.cu_seqlens[middle], 0), lengths.q.total);
    (begin / m + middle <= tile ? index : past) = middle;
  }
  const SequenceRows sequence = lengths.queries(index);
  return {index, sequence, (tile - first_query_tile(sequence, index, m)) * m};
}

// What the kernels before and after the backward kernel get.
struct BackwardRowParams {
  RowTensor o;
  RowTensor dout;
  RowTensor dq;
  void* dout_copy;     // [rows of dO, heads_q, head_dim_v], for strides that the copy engine does not take; or null
  const float* lse;    // of lse_layout
  const float* dlse;   // likewise, or null
  const float* sinks;  // [heads_q]
  float* dsink;        // [heads_q], or null
  BandLimits limits;
  float scale;
  VarlenLengths lengths;
  RowLayout lse_layout;
  int batch;  // of the workspace: 1 where queries are packed
  BackwardRows rows;
};

}  // namespace fattn::gpu::sm90
