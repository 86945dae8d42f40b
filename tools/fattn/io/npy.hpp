// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/array.hpp"
#include "io/file.hpp"

namespace fattn::io {

struct NpyHeader {
  Element element = Element::f32;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// The dictionary of an .npy header: "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }". Throws
// Error(io_error) naming `file` and the value.
NpyHeader parse_npy_header(std::string_view text, const std::string& file);

// Versions 1 to 3. Column-major (Fortran) data is turned row-major.
Array read_npy(const Source& source);

// bf16 and e4m3 have no name in this format: Error(invalid_argument).
void write_npy(Sink& sink, const Array& array);

}  // namespace fattn::io
