// SPDX-License-Identifier: Apache-2.0
// Buffers take inputs as const and outputs as not: results cannot land in const memory.
// expect: invalid conversion from .const void\*. to .void\*.
#include "fattn/fattn.hpp"

const void* data = nullptr;
#ifdef FATTN_MISUSE
fattn::Buffers buffers{.o = data};
#else
fattn::Buffers buffers{.q = data};
#endif
