// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include "fattn/error.hpp"

namespace nb = nanobind;

namespace fattn::python {
namespace {

[[noreturn]] void refuse(const char* name, nb::handle value, const char* wanted) {
  PyErr_Clear();
  throw nb::type_error((std::string(name) + " = " + nb::repr(value).c_str() + " must be " + wanted).c_str());
}

bool flag(const char* name, nb::handle value) {
  if (value.ptr() == Py_True) return true;
  if (value.ptr() == Py_False) return false;
  for (const bool wanted : {false, true}) {  // 0, 1, NumPy's own
    const int same = PyObject_RichCompareBool(value.ptr(), wanted ? Py_True : Py_False, Py_EQ);
    if (same > 0) return wanted;
    if (same < 0) break;  // an array of many
  }
  refuse(name, value, "True or False");
}

std::int64_t integer(const char* name, nb::handle value) {
  const nb::object whole = nb::steal(PyNumber_Index(value.ptr()));
  if (!whole.is_valid()) refuse(name, value, "an integer");
  const std::int64_t number = PyLong_AsLongLong(whole.ptr());
  if (number == -1 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw Error(Status::invalid_argument, std::string(name) + " = " + nb::repr(value).c_str() +
                                              " does not fit 64 bits; nearest: 9223372036854775807");
  }
  return number;
}

double real(const char* name, nb::handle value) {
  if (PyFloat_CheckExact(value.ptr())) return PyFloat_AsDouble(value.ptr());
  const nb::object number = nb::steal(PyNumber_Float(value.ptr()));
  if (!number.is_valid()) refuse(name, value, "a number");
  return PyFloat_AsDouble(number.ptr());
}

}  // namespace

Options read_options(const std::array<nb::handle, Options::kCount>& values) {
  Options o;
  o.causal = flag("causal", values[0]);
  o.causal_top_left = flag("causal_top_left", values[1]);
  o.window_left = integer("window[0]", values[2]);
  o.window_right = integer("window[1]", values[3]);
  o.chunk = integer("chunk", values[4]);
  if (!values[5].is_none()) o.softmax_scale = real("softmax_scale", values[5]);
  o.softcap = real("softcap", values[6]);
  o.dropout = real("dropout_p", values[7]);
  o.deterministic = flag("deterministic", values[8]);
  o.batch_invariant = flag("batch_invariant", values[9]);
  if (!PyUnicode_Check(values[10].ptr())) refuse("kernel", values[10], "a text");
  o.kernel = nb::cast<std::string>(values[10]);
  return o;
}

std::int64_t read_integer(const char* name, nb::handle value) { return integer(name, value); }

}  // namespace fattn::python
