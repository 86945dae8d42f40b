// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace fattn::python {

// Adds `xla_handlers` to the module: tuples (target name, platform, capsule) for jax.ffi, or None in a build without
// XLA's headers. CMake picks xla.cpp or no_xla.cpp.
void add_xla_handlers(nanobind::module_& m);

}  // namespace fattn::python
