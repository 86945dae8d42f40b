// SPDX-License-Identifier: Apache-2.0
#include "describe.hpp"

#include <algorithm>

namespace nb = nanobind;

namespace fattn::python {
namespace {

using std::int64_t;

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

std::string text_of(const Array& array) {
  return std::string(array.name) + " of shape " + shape_text(array.shape.data(), array.rank);
}

int read_integers(const char* name, nb::handle sequence, std::array<int64_t, 4>& out) {
  if (!PyTuple_Check(sequence.ptr())) throw nb::type_error("shapes and strides are tuples");
  const Py_ssize_t rank = PyTuple_Size(sequence.ptr());
  if (rank > 4) {
    refuse(std::string(name) + " has " + std::to_string(rank) +
           " dimensions; nearest: 4 (batch, seqlen, heads, head_dim)");
  }
  for (Py_ssize_t i = 0; i < rank; ++i) {
    out[static_cast<std::size_t>(i)] = PyLong_AsLongLong(PyTuple_GetItem(sequence.ptr(), i));
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
  }
  return static_cast<int>(rank);
}

void require_rank(const Array& array) {
  if (array.rank == 3 || array.rank == 4) return;
  refuse(text_of(array) + " must have 4 dimensions (batch, seqlen, heads, head_dim), or 3 where sequences are packed");
}

void require_same(const Array& a, int dimension_a, const Array& b, int dimension_b, const char* what) {
  const int64_t one = a.shape[static_cast<std::size_t>(dimension_a)];
  const int64_t two = b.shape[static_cast<std::size_t>(dimension_b)];
  if (one == two) return;
  refuse(text_of(b) + " does not go with " + text_of(a) + ": " + what +
         " must be the same; nearest: " + std::to_string(one));
}

// Unset where the array is contiguous. Strides of extents below 2 say nothing and are taken as contiguous.
std::optional<Strides> strides_of(const Array& array) {
  const int first = array.rank == 4 ? 0 : -1;  // index of batch
  const auto at = [&](int dimension) { return static_cast<std::size_t>(first + dimension); };
  int64_t inside = 1;
  bool contiguous = true;
  std::array<int64_t, 4> stride = {};
  for (int dimension = 3; dimension >= -first; --dimension) {
    const int64_t extent = array.shape[at(dimension)];
    const auto index = static_cast<std::size_t>(dimension);
    stride[index] = extent > 1 ? array.stride[at(dimension)] : inside;
    contiguous = contiguous && stride[index] == inside;
    inside *= std::max<int64_t>(extent, 1);
  }
  if (contiguous) return std::nullopt;
  return Strides{.batch = stride[0], .seqlen = stride[1], .head = stride[2], .dim = stride[3]};
}

void require_unit(const Array& array) {
  const auto last = static_cast<std::size_t>(array.rank - 1);
  if (array.stride[last] == 1 || array.shape[last] <= 1) return;
  refuse(std::string(array.name) + " has stride " + std::to_string(array.stride[last]) +
         " in its last dimension; nearest: 1, as " + array.name + ".contiguous() has it");
}

int64_t alignment_of(std::uintptr_t address, int64_t current) {
  while (current > 1 && address % static_cast<std::uintptr_t>(current) != 0) current /= 2;
  return current;
}

}  // namespace

std::string shape_text(const int64_t* extents, int rank) {
  std::string text = "(";
  for (int i = 0; i < rank; ++i) text += (i > 0 ? ", " : "") + std::to_string(extents[i]);
  return text + (rank == 1 ? ",)" : ")");
}

void settle_strides(Array& array) {
  const auto begin = array.shape.begin(), end = begin + array.rank;
  if (std::find(begin, end, 0) == end) return;
  for (int64_t i = array.rank - 1, inside = 1; i >= 0; --i) {
    array.stride[static_cast<std::size_t>(i)] = inside;
    inside *= std::max<int64_t>(array.shape[static_cast<std::size_t>(i)], 1);
  }
}

Array read_array(const char* name, std::uintptr_t address, nb::handle shape, nb::handle stride) {
  Array array{.name = name, .address = address};
  array.rank = read_integers(name, shape, array.shape);
  if (read_integers(name, stride, array.stride) != array.rank)
    refuse(std::string(name) + " has fewer strides than dimensions");
  settle_strides(array);
  return array;
}

void describe(Problem& p, const Array& q, const Array& k, const Array& v, const Lengths& lengths) {
  for (const Array* array : {&q, &k, &v}) {
    require_rank(*array);
    require_unit(*array);
  }
  if (k.rank != v.rank) refuse(text_of(v) + " does not go with " + text_of(k) + "; nearest: as many dimensions");
  const bool packed_q = q.rank == 3, packed_k = k.rank == 3;
  const auto dimension = [](const Array& array, int index) {
    return array.shape[static_cast<std::size_t>(array.rank - 4 + index)];
  };
  require_same(k, k.rank - 2, v, v.rank - 2, "heads");
  require_same(k, k.rank - 3, v, v.rank - 3, packed_k ? "total" : "seqlen");
  require_same(q, q.rank - 1, k, k.rank - 1, "head_dim");
  // A Problem says "as head_dim" by 0.
  if (dimension(v, 3) < 1) refuse(text_of(v) + " has no columns; nearest: head_dim 1");
  if (!packed_q && !packed_k) require_same(q, 0, k, 0, "batch");
  if (!packed_k) require_same(k, 0, v, 0, "batch");
  p.batch = packed_q || packed_k ? lengths.batch : q.shape[0];
  for (const Array* array : {&q, &k, &v}) {
    if (array->rank == 4 && array->shape[0] != p.batch) {
      refuse(text_of(*array) + " does not go with cu_seqlens of " + std::to_string(p.batch) +
             " sequences; nearest: batch " + std::to_string(p.batch));
    }
  }
  p.heads_q = dimension(q, 2);
  p.heads_kv = dimension(k, 2);
  p.head_dim = dimension(q, 3);
  p.head_dim_v = dimension(v, 3) == p.head_dim ? 0 : dimension(v, 3);
  p.seqlen_q = packed_q ? lengths.longest_q : q.shape[1];
  p.seqlen_k = packed_k ? lengths.longest_k : k.shape[1];
  if (packed_q) p.total_q = q.shape[0];
  if (packed_k) p.total_k = k.shape[0];
  p.strides.q = strides_of(q);
  p.strides.k = strides_of(k);
  p.strides.v = strides_of(v);
  for (const Array* array : {&q, &k, &v}) p.alignment = alignment_of(array->address, p.alignment);
}

void describe_dout(Problem& p, const Array& dout) {
  require_rank(dout);
  const bool packed = p.total_q.has_value();
  const std::array<int64_t, 4> shape = {p.batch, packed ? *p.total_q : p.seqlen_q, p.heads_q, head_dim_v(p)};
  const int rank = packed ? 3 : 4;
  if (dout.rank != rank || !std::equal(dout.shape.begin(), dout.shape.begin() + rank, shape.begin() + (4 - rank))) {
    refuse(text_of(dout) + " does not have the shape of o; nearest: " + shape_text(shape.data() + (4 - rank), rank));
  }
  const auto last = static_cast<std::size_t>(dout.rank - 1);
  if (dout.stride[last] != 0) require_unit(dout);
  p.strides.dout = strides_of(dout);
  p.alignment = alignment_of(dout.address, p.alignment);
}

Bias describe_bias(const Problem& p, const Array& bias, DType dtype) {
  const auto& [name, address, rank, extent, stride] = bias;
  const std::array<int64_t, 4> full = {p.batch, p.heads_q, p.seqlen_q, p.seqlen_k};
  std::array<bool, 4> has = {};
  for (int i = 0; i < rank; ++i) {
    const auto own = static_cast<std::size_t>(i), of = static_cast<std::size_t>(4 - rank + i);
    has[of] = extent[own] == full[of] && full[of] != 1;
    if (extent[own] == full[of] || extent[own] == 1) continue;
    refuse(text_of(bias) +
           " does not broadcast to (batch, heads_q, seqlen_q, seqlen_k); nearest: " + shape_text(full.data(), 4));
  }
  return {.batch = has[0], .heads = has[1], .queries = has[2], .keys = has[3], .dtype = dtype};
}

}  // namespace fattn::python
