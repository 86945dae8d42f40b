// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/ptx/arithmetic.cuh"
#include "cuda/ptx/matrix.cuh"
#include "cuda/tile/swizzle.cuh"

// Pieces of matrices in the registers of a warpgroup, as wgmma lays them out. Of a 64 x n accumulator warp w has rows
// 16 w .. 16 w + 15, and a lane has two of them; element 4 i + 2 r + e of a thread is
//   row 16 w + lane / 4 + 8 r, column 8 i + 2 (lane % 4) + e.
namespace fattn::gpu::tile {

// The larger, or the sum, over the four lanes that share a row.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

template <int count>
__device__ __forceinline__ void scale_rows(float (&accumulator)[count], const float (&factor)[2]) {
#pragma unroll
  for (int i = 0; i < count; i++) accumulator[i] *= factor[(i / 2) % 2];
}

// An accumulator of S is, rounded, the left operand of the next product: no data moves between threads.
template <class Element, int count>
__device__ __forceinline__ void round_to_operand(std::uint32_t (&operand)[count / 2],
                                                 const float (&accumulator)[count]) {
#pragma unroll
  for (int i = 0; i < count / 2; i++) operand[i] = ptx::pack<Element>(accumulator[2 * i], accumulator[2 * i + 1]);
}

// Left operand of this warp, 16 rows from `row` of a swizzled tile, all columns.
template <int rows, int columns>
__device__ __forceinline__ void load_operand(std::uint32_t (&operand)[columns / 4], std::uint32_t address, int row) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; step < columns / 16; step++) {
    std::uint32_t four[4];
    ptx::ldmatrix(four, address + SwizzledTile<rows, columns>::chunk(row + lane % 16, 2 * step + lane / 16));
#pragma unroll
    for (int i = 0; i < 4; i++) operand[4 * step + i] = four[i];
  }
}

// The reverse for an accumulator, rounded.
template <class Element, int rows, int columns>
__device__ __forceinline__ void store_accumulator(const float (&accumulator)[columns / 2], std::uint32_t address,
                                                  int row) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; step < columns / 16; step++) {
    std::uint32_t four[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
      four[i] = ptx::pack<Element>(accumulator[8 * step + 2 * i], accumulator[8 * step + 2 * i + 1]);
    ptx::stmatrix(address + SwizzledTile<rows, columns>::chunk(row + lane % 16, 2 * step + lane / 16), four);
  }
}

// Pairs i of lane q of every four lanes become pairs q of lane i.
__device__ __forceinline__ void transpose_quad(std::uint32_t (&pairs)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t other = __shfl_xor_sync(~0u, odd ? pairs[i] : pairs[i + 1], 1);
    (odd ? pairs[i] : pairs[i + 1]) = other;
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const std::uint32_t other = __shfl_xor_sync(~0u, upper ? pairs[i] : pairs[i + 2], 2);
    (upper ? pairs[i] : pairs[i + 2]) = other;
  }
}

}  // namespace fattn::gpu::tile
