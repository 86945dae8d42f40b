// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "describe.hpp"

namespace fattn::python {

// The element types that a tensor may have here.
enum class Element : std::uint8_t { fp64, fp32, bf16, fp16, e4m3, int32, int64, other };

std::optional<DType> dtype_of(Element element);

// str(object)
std::string printed(nanobind::handle object);

// A tensor of a framework, kept alive by its caller.
struct Tensor {
  nanobind::handle object;
  Array array;
  Element element = Element::other;
  int device = -1;  // CUDA ordinal; -1: the CPU
};

// Says once how tensors are read. `type` is their class; `exchange` the capsule of DLPack's C functions, with which
// reading takes some nanoseconds, or None: attributes are asked; `elements` maps the framework's dtypes to Element;
// `refuse` (name, tensor) raises for tensors that have no plain memory on the CPU or a CUDA device.
void attach(nanobind::handle type, nanobind::handle exchange, nanobind::dict elements, nanobind::callable refuse);

// Throws Error or a Python exception that names the tensor.
Tensor read_tensor(const char* name, nanobind::handle object);

bool contiguous(const Array& array);

// Throws unless the tensor has this element type, lies with q, is contiguous and has one of the shapes (none: any).
struct Shape {
  int rank;
  std::array<std::int64_t, 4> extent;
};
void require_side(const Tensor& tensor, Element element, int device, std::initializer_list<Shape> shapes);
// Throws: this dtype of q has no kernel.
[[noreturn]] void refuse_dtype(const Tensor& q);
// q, k, v and what has their dtype.
void require_alike(const Tensor& tensor, const Tensor& q);

}  // namespace fattn::python
