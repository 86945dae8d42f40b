// SPDX-License-Identifier: Apache-2.0
// Masks join with masks: a bare number could be a window, a chunk or a length.
// expect: no match for .operator&.
#include "fattn/fattn.hpp"

#ifdef FATTN_MISUSE
fattn::Mask mask = fattn::causal() & 1024;
#else
fattn::Mask mask = fattn::causal() & fattn::window(1024, 0);
#endif
