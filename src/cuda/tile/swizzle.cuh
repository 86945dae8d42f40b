// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace fattn::gpu::tile {

// A tile of 16-bit elements as the copy engine writes it with the 128-byte swizzle: slices of 64 columns, one after the
// other; in a slice a row is 128 bytes, whose eight 16-byte chunks are permuted by the row's number. Tiles start at
// multiples of 1024 bytes. Columns past the last whole slice fill a slice of their own.
template <int rows, int columns>
struct SwizzledTile {
  static_assert(rows % 8 == 0, "the swizzle repeats every eight rows");
  static_assert(columns % 16 == 0, "wgmma reduces over 16 columns at a time");
  static constexpr int kSlices = (columns + 63) / 64;
  static constexpr int kSliceBytes = rows * 128;
  static constexpr int kBytes = kSlices * kSliceBytes;

  // Byte of the 16-byte chunk `chunk` (eight columns) of a row.
  __device__ __forceinline__ static int chunk(int row, int chunk) {
    return (chunk / 8) * kSliceBytes + row * 128 + (((chunk % 8) ^ (row % 8)) << 4);
  }

  // wgmma operand whose reduction runs along the columns, 16 of them from column 16 * step; rows from a multiple of 8.
  __device__ __forceinline__ static std::uint64_t along_columns(std::uint32_t address, int step) {
    return descriptor(address, 16) + ((step / 4) * kSliceBytes + (step % 4) * 32) / 16;
  }

  // Its reduction runs along the rows, 16 of them from row 16 * step: Major::mn.
  __device__ __forceinline__ static std::uint64_t along_rows(std::uint32_t address, int step) {
    return descriptor(address, kSliceBytes) + step * 2048 / 16;
  }

 private:
  // Groups of eight rows are 1024 bytes apart; `leading` is the distance of slices where the hardware needs it.
  __device__ __forceinline__ static std::uint64_t descriptor(std::uint32_t address, int leading) {
    return static_cast<std::uint64_t>((address & 0x3FFFF) >> 4) | static_cast<std::uint64_t>(leading >> 4) << 16 |
           static_cast<std::uint64_t>(1024 >> 4) << 32 | static_cast<std::uint64_t>(1) << 62;
  }
};

}  // namespace fattn::gpu::tile
