// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>

#include "emulated_gpu/block.hpp"

// The same as src/cuda/ptx/matrix.cuh, for the emulated GPU.
namespace fattn::gpu::ptx {

// Row `row` of matrix `matrix` lies where lane 8 * matrix + row said, in the first of its words.
inline unsigned char* matrix_row(const emulated_gpu::Lanes& lanes, int matrix, int row) {
  const std::uint32_t address = lanes[static_cast<std::size_t>(8 * matrix + row)][0];
  if (address % 16 != 0) emulated_gpu::fail("a row of a matrix at %u: addresses are multiples of 16", address);
  return emulated_gpu::shared_memory(address, 16);
}

inline void ldmatrix(std::uint32_t (&to)[4], std::uint32_t from) {
  const emulated_gpu::Lanes& lanes = emulated_gpu::meet_warp("ldmatrix", {from});
  const int lane = static_cast<int>(emulated_gpu::here().thread.x % 32);
  for (int matrix = 0; matrix < 4; matrix++)
    std::memcpy(&to[matrix], matrix_row(lanes, matrix, lane / 4) + lane % 4 * 4, 4);
}

// The lanes' elements (lane / 4, 2 * (lane % 4) + half) of each matrix, written by the first to come.
inline void store_matrices(const char* what, std::uint32_t to, const std::uint32_t (&from)[4], bool transposed) {
  const emulated_gpu::Lanes& lanes = emulated_gpu::meet_warp(what, {to, from[0], from[1], from[2], from[3]});
  const auto lane = static_cast<std::size_t>(emulated_gpu::here().thread.x % 32);
  for (int matrix = 0; matrix < 4; matrix++)
    for (int half = 0; half < 2; half++) {
      const int row = static_cast<int>(lane / 4), column = static_cast<int>(2 * (lane % 4)) + half;
      const auto element = static_cast<std::uint16_t>(from[matrix] >> (16 * half));
      unsigned char* const place = matrix_row(lanes, matrix, transposed ? column : row);
      std::memcpy(place + 2 * (transposed ? row : column), &element, 2);
      emulated_gpu::wrote_shared(lanes[static_cast<std::size_t>(8 * matrix + (transposed ? column : row))][0], 16);
    }
  emulated_gpu::meet_warp(what, {});
}
inline void stmatrix(std::uint32_t to, const std::uint32_t (&from)[4]) { store_matrices("stmatrix", to, from, false); }
inline void stmatrix_trans(std::uint32_t to, const std::uint32_t (&from)[4]) {
  store_matrices("stmatrix.trans", to, from, true);
}

}  // namespace fattn::gpu::ptx
