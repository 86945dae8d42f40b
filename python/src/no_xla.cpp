// SPDX-License-Identifier: Apache-2.0
#include "xla.hpp"

namespace fattn::python {

void add_xla_handlers(nanobind::module_& m) { m.attr("xla_handlers") = nanobind::none(); }

}  // namespace fattn::python
