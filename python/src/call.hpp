// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace fattn::python {

// Adds attach, forward, backward and their runs to the module: a call on the tensors of a framework, from its arguments
// to the plan and from the plan to the run, in two steps because the framework allocates between them.
void add_calls(nanobind::module_& m);

}  // namespace fattn::python
