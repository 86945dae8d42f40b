// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "algebra/mask_band.hpp"
#include "cuda/sm90/backward_params.hpp"
#include "fattn/tensor.hpp"

namespace fattn::gpu::sm90 {

// A tensor [batch, seqlen, heads, head_dim] of 16-bit elements for ordinary loads and stores.
struct RowTensor {
  void* data;
  Strides strides;
  int chunks;  // rows are read and written 16 bytes at a time; 0: their strides do not allow it
};

// What the kernels before and after the backward kernel get.
struct BackwardRowParams {
  RowTensor o;
  RowTensor dout;
  RowTensor dq;
  void* dout_copy;     // [batch, seqlen_q, heads_q, head_dim], for strides that the copy engine does not take; or null
  const float* lse;    // [batch, heads_q, seqlen_q]
  const float* dlse;   // likewise, or null
  const float* sinks;  // [heads_q]
  float* dsink;        // [heads_q], or null
  BandLimits limits;
  float scale;
  int batch;
  int seqlen_q;
  int seqlen_k;
  BackwardRows rows;
};

}  // namespace fattn::gpu::sm90
