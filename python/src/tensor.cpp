// SPDX-License-Identifier: Apache-2.0
#include "tensor.hpp"

#include <algorithm>
#include <string>

namespace nb = nanobind;

namespace fattn::python {
namespace {

using std::int64_t;

// What DLPack 1.x fixes for every framework (dlpack.h): a view of a tensor, and the table of functions behind
// __dlpack_c_exchange_api__.
struct DlTensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t rank;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  const int64_t* shape;
  const int64_t* strides;
  std::uint64_t byte_offset;
};
struct DlExchange {
  std::uint32_t major, minor;
  const DlExchange* previous;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  int (*view_of_object)(void* object, DlTensor* out);
  int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};
enum DeviceType : std::int32_t { kDlCpu = 1, kDlCuda = 2 };

// How tensors are read; never freed, as the framework's own types are not.
struct Reader {
  nb::handle type;
  const DlExchange* exchange = nullptr;
  nb::dict elements;
  nb::object refuse;
};
Reader* reader = nullptr;

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

Element element_of(const DlTensor& t) {
  if (t.lanes != 1) return Element::other;
  switch (t.code * 256 + t.bits) {
    case 2 * 256 + 64: return Element::fp64;
    case 2 * 256 + 32: return Element::fp32;
    case 2 * 256 + 16: return Element::fp16;
    case 4 * 256 + 16: return Element::bf16;
    case 10 * 256 + 8: return Element::e4m3;
    case 0 * 256 + 32: return Element::int32;
    case 0 * 256 + 64: return Element::int64;
    default: return Element::other;
  }
}

// What the framework calls an element type.
std::string name_of(Element element) {
  for (auto [dtype, value] : reader->elements) {
    if (nb::cast<int>(value) == static_cast<int>(element)) return printed(dtype);
  }
  return "another dtype";
}

std::string device_text(int device) { return device < 0 ? "cpu" : "cuda:" + std::to_string(device); }

void require_rank(const char* name, int rank) {
  if (rank <= 4) return;
  refuse(std::string(name) + " has " + std::to_string(rank) +
         " dimensions; nearest: 4 (batch, seqlen, heads, head_dim)");
}

Tensor read_attributes(const char* name, nb::handle object) {
  Tensor out{.object = object, .array = {.name = name}};
  const nb::object dtype = object.attr("dtype");
  if (reader->elements.contains(dtype)) out.element = static_cast<Element>(nb::cast<int>(reader->elements[dtype]));
  out.device = nb::cast<int>(object.attr("get_device")());
  require_rank(name, nb::cast<int>(object.attr("dim")()));
  out.array = read_array(name, nb::cast<std::uintptr_t>(object.attr("data_ptr")()), object.attr("shape"),
                         object.attr("stride")());
  return out;
}

}  // namespace

std::string printed(nb::handle object) { return nb::str(object).c_str(); }

std::optional<DType> dtype_of(Element element) {
  if (element > Element::e4m3) return std::nullopt;
  return static_cast<DType>(element);
}

void attach(nb::handle type, nb::handle exchange, nb::dict elements, nb::callable refuse) {
  reader = new Reader{nb::borrow(type).release(), nullptr, std::move(elements), std::move(refuse)};
  if (exchange.is_none()) return;
  const auto* table = static_cast<const DlExchange*>(PyCapsule_GetPointer(exchange.ptr(), "dlpack_exchange_api"));
  if (table == nullptr) throw nb::python_error();
  while (table != nullptr && table->major != 1) table = table->previous;
  reader->exchange = table;
}

Tensor read_tensor(const char* name, nb::handle object) {
  if (!nb::isinstance(object, reader->type)) {
    const std::string kind = printed(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()))).attr("__name__"));
    throw nb::type_error((std::string(name) + " is a " + kind + "; nearest: a torch.Tensor").c_str());
  }
  DlTensor t;
  const bool viewed = reader->exchange != nullptr && reader->exchange->view_of_object(object.ptr(), &t) == 0;
  if (!viewed || (t.device_type != kDlCpu && t.device_type != kDlCuda)) {
    PyErr_Clear();
    reader->refuse(name, object);
    return read_attributes(name, object);
  }
  require_rank(name, t.rank);
  Tensor out{.object = object, .array = {.name = name}, .element = element_of(t)};
  out.device = t.device_type == kDlCpu ? -1 : t.device_id;
  out.array.address = reinterpret_cast<std::uintptr_t>(t.data) + t.byte_offset;
  out.array.rank = t.rank;
  std::copy_n(t.shape, t.rank, out.array.shape.begin());
  std::copy_n(t.strides, t.rank, out.array.stride.begin());
  settle_strides(out.array);
  return out;
}

bool contiguous(const Array& array) {
  int64_t inside = 1;
  for (int i = array.rank - 1; i >= 0; --i) {
    const auto index = static_cast<std::size_t>(i);
    if (array.shape[index] == 0) return true;
    if (array.shape[index] > 1 && array.stride[index] != inside) return false;
    inside *= array.shape[index];
  }
  return true;
}

void require_side(const Tensor& tensor, Element element, int device, std::initializer_list<Shape> shapes) {
  const Array& array = tensor.array;
  if (tensor.element != element) {
    const std::string message = std::string(array.name) + " has dtype " + printed(tensor.object.attr("dtype")) +
                                "; nearest: " + name_of(element);
    throw nb::type_error(message.c_str());
  }
  if (tensor.device != device) {
    refuse(std::string(array.name) + " is on " + printed(tensor.object.attr("device")) +
           "; nearest: the device of q, " + device_text(device));
  }
  if (!contiguous(array))
    refuse(std::string(array.name) + " is not contiguous; nearest: " + array.name + ".contiguous()");
  std::string wanted;
  for (const Shape& shape : shapes) {
    if (array.rank == shape.rank &&
        std::equal(shape.extent.begin(), shape.extent.begin() + shape.rank, array.shape.begin()))
      return;
    wanted += (wanted.empty() ? "" : " or ") + shape_text(shape.extent.data(), shape.rank);
  }
  if (!wanted.empty()) {
    refuse(std::string(array.name) + " has shape " + shape_text(array.shape.data(), array.rank) +
           "; nearest: " + wanted);
  }
}

void refuse_dtype(const Tensor& q) {
  throw nb::type_error(("q has dtype " + printed(q.object.attr("dtype")) + "; nearest: torch.bfloat16").c_str());
}

void require_alike(const Tensor& tensor, const Tensor& q) {
  const std::string name = tensor.array.name;
  if (tensor.element != q.element) {
    if (!dtype_of(q.element)) refuse_dtype(q);  // what q has is nothing to become alike to
    const std::string dtype = printed(q.object.attr("dtype"));
    throw nb::type_error(
        (name + " has dtype " + printed(tensor.object.attr("dtype")) + " and q has " + dtype + "; nearest: " + dtype)
            .c_str());
  }
  if (tensor.device != q.device) {
    refuse(name + " is on " + printed(tensor.object.attr("device")) + " and q is on " + device_text(q.device) +
           "; nearest: " + device_text(q.device));
  }
}

}  // namespace fattn::python
