// SPDX-License-Identifier: Apache-2.0
// fattn._core: Problem -> Plan -> run for Python. Arrays come as addresses, shapes and strides, so that no framework is
// needed to build or to import this.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <cmath>

#include "call.hpp"
#include "describe.hpp"
#include "options.hpp"
#include "request.hpp"
#include "xla.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace fattn::python {
namespace {

using Address = std::uint64_t;

void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    PyObject* kind = PyExc_RuntimeError;
    switch (error.status()) {
      case Status::invalid_argument:
      case Status::workspace_too_small: kind = PyExc_ValueError; break;
      case Status::unsupported: kind = PyExc_NotImplementedError; break;
      case Status::out_of_memory: kind = PyExc_MemoryError; break;
      case Status::io_error: kind = PyExc_OSError; break;
      default: break;
    }
    PyErr_SetString(kind, error.what());
  }
}

DType dtype_of(int code) {
  if (code < 0 || code > static_cast<int>(DType::e4m3)) throw nb::value_error("dtype code out of range");
  return static_cast<DType>(code);
}

std::shared_ptr<Planned> make_plan(bool backward, int dtype, int device, int threads, const Options& options, Address q,
                                   nb::handle q_shape, nb::handle q_stride, Address k, nb::handle k_shape,
                                   nb::handle k_stride, Address v, nb::handle v_shape, nb::handle v_stride,
                                   Address dout, nb::handle dout_shape, nb::handle dout_stride, std::int64_t batch,
                                   std::int64_t longest_q, std::int64_t longest_k, unsigned flags,
                                   nb::handle bias_shape, int bias_dtype) {
  Request request;
  Problem& p = request.problem;
  p.pass = backward ? Pass::backward : Pass::forward;
  p.dtype = dtype_of(dtype);
  options.apply(p);
  describe(p, read_array("q", q, q_shape, q_stride), read_array("k", k, k_shape, k_stride),
           read_array("v", v, v_shape, v_stride), {batch, longest_q, longest_k});
  if (backward) describe_dout(p, read_array("dout", dout, dout_shape, dout_stride));
  if (!bias_shape.is_none()) {
    p.score.bias = describe_bias(p, read_array("bias", 0, bias_shape, bias_shape), dtype_of(bias_dtype));
  }
  apply_flags(p, flags);
  request.kind = device < 0 ? DeviceKind::cpu : DeviceKind::cuda;
  request.index = device < 0 ? 0 : device;
  request.threads = threads;
  request.kernel = options.kernel;
  return find_plan(std::move(request));
}

template <class Pointer>
Pointer at(Address address) {
  return reinterpret_cast<Pointer>(address);  // NOLINT(performance-no-int-to-ptr): Python hands addresses as integers
}

void run_plan(const Planned& planned, Address stream, Address workspace, std::size_t workspace_bytes, Address q,
              Address k, Address v, Address o, Address lse, Address max_logit, Address cu_seqlens_q,
              Address cu_seqlens_k, Address seqused_q, Address seqused_k, Address bias, Address alibi_slopes,
              Address sinks, Address document_q, Address document_k, Address prefix, Address dropout_seed,
              Address dropout_offset, Address dout, Address dlse, Address dq, Address dk, Address dv, Address dbias,
              Address dsink) {
  using Int32 = const std::int32_t*;
  using Float = const float*;
  Buffers buffers;
  buffers.q = at<const void*>(q);
  buffers.k = at<const void*>(k);
  buffers.v = at<const void*>(v);
  buffers.o = at<void*>(o);
  buffers.lse = at<float*>(lse);
  buffers.max_logit = at<float*>(max_logit);
  buffers.cu_seqlens_q = at<Int32>(cu_seqlens_q);
  buffers.cu_seqlens_k = at<Int32>(cu_seqlens_k);
  buffers.seqused_q = at<Int32>(seqused_q);
  buffers.seqused_k = at<Int32>(seqused_k);
  buffers.bias = at<const void*>(bias);
  buffers.alibi_slopes = at<Float>(alibi_slopes);
  buffers.sinks = at<Float>(sinks);
  buffers.document_q = at<Int32>(document_q);
  buffers.document_k = at<Int32>(document_k);
  buffers.prefix = at<Int32>(prefix);
  buffers.dropout_seed = at<const std::uint64_t*>(dropout_seed);
  buffers.dropout_offset = at<const std::uint64_t*>(dropout_offset);
  buffers.dout = at<const void*>(dout);
  buffers.dlse = at<Float>(dlse);
  buffers.dq = at<void*>(dq);
  buffers.dk = at<void*>(dk);
  buffers.dv = at<void*>(dv);
  buffers.dbias = at<float*>(dbias);
  buffers.dsink = at<float*>(dsink);
  const nb::gil_scoped_release released;
  run(planned.plan, buffers, {at<void*>(workspace), workspace_bytes}, Stream(at<CUstream_st*>(stream)));
}

// Anything that speaks DLPack or the buffer protocol and lies in host memory.
struct View {
  nb::ndarray<nb::ro> array;

  nb::tuple integers(bool strides) const {
    nb::list out;
    for (std::size_t i = 0; i < array.ndim(); ++i) out.append(strides ? array.stride(i) : std::int64_t(array.shape(i)));
    return nb::tuple(out);
  }
  std::string dtype() const {
    static constexpr const char* kNames[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
    const nb::dlpack::dtype type = array.dtype();
    return (type.code < std::size(kNames) ? kNames[type.code] : "dtype" + std::to_string(type.code) + "_") +
           std::to_string(type.bits);
  }
};

View make_view(nb::handle object) {
  auto array = nb::cast<nb::ndarray<nb::ro>>(object);
  if (array.device_type() != nb::device::cpu::value) {
    throw Error(Status::invalid_argument, "array is not in host memory (DLPack device type " +
                                              std::to_string(array.device_type()) + "); nearest: a copy on the CPU");
  }
  return {std::move(array)};
}

}  // namespace

NB_MODULE(_core, m) {
  m.doc() = "Problem -> Plan -> run over addresses, shapes and strides. The public interface is the package fattn.";
  nb::register_exception_translator(translate);

  const Version number = version();
  m.attr("version") =
      std::to_string(number.major) + "." + std::to_string(number.minor) + "." + std::to_string(number.patch);

  nb::class_<Options>(m, "Options").def("__init__", [](Options* self, nb::args values) {
    std::array<nb::handle, Options::kCount> given;
    if (values.size() != given.size()) throw nb::type_error("Options takes the values of its fields");
    for (std::size_t i = 0; i < given.size(); ++i) given[i] = values[i];
    new (self) Options(read_options(given));
  });

  nb::class_<Planned>(m, "Plan")
      .def_ro("serial", &Planned::serial)
      .def_prop_ro("workspace_bytes", [](const Planned& self) { return self.plan.workspace_bytes(); })
      .def_prop_ro("kernel", [](const Planned& self) { return std::string(self.plan.kernel()); })
      .def_prop_ro("problem", [](const Planned& self) { return to_string(self.plan.problem()); })
      .def("explain", [](const Planned& self) { return self.plan.explain(); })
      .def("run", &run_plan);

  m.def("plan", &make_plan, "backward"_a, "dtype"_a, "device"_a, "threads"_a, "options"_a, "q"_a, "q_shape"_a,
        "q_stride"_a, "k"_a, "k_shape"_a, "k_stride"_a, "v"_a, "v_shape"_a, "v_stride"_a, "dout"_a,
        "dout_shape"_a.none(), "dout_stride"_a.none(), "batch"_a, "longest_q"_a, "longest_k"_a, "flags"_a,
        "bias_shape"_a.none(), "bias_dtype"_a);
  m.def(
      "explain",
      [](const std::string& problem, const std::string& device, const std::string& kernel) {
        return plan(parse_problem(problem), parse_device(device), kernel).explain();
      },
      "problem"_a, "device"_a, "kernel"_a);
  m.def("kernels", [] {
    nb::list out;
    for (const KernelInfo& row : kernels()) {
      out.append(nb::make_tuple(row.name, row.device == DeviceKind::cuda ? "cuda" : "cpu",
                                std::string(to_string(row.pass)), row.compiled, row.by_name_only));
    }
    return out;
  });
  m.def("devices", [] {
    nb::list out;
    for (const Device& device : devices()) {
      out.append(nb::make_tuple(device.kind == DeviceKind::cuda ? "cuda" : "cpu", device.index, device.name));
    }
    return out;
  });

  add_calls(m);
  add_xla_handlers(m);

  nb::class_<View>(m, "View")
      .def("__init__", [](View* self, nb::handle object) { new (self) View(make_view(object)); })
      .def_prop_ro("address", [](const View& self) { return reinterpret_cast<std::uintptr_t>(self.array.data()); })
      .def_prop_ro("shape", [](const View& self) { return self.integers(false); })
      .def_prop_ro("strides", [](const View& self) { return self.integers(true); })
      .def_prop_ro("dtype", &View::dtype);
}

}  // namespace fattn::python
