// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fattn {

// How often this thread has called operator new. allocations.cpp replaces it for the whole program.
long allocations();

}  // namespace fattn
