// SPDX-License-Identifier: Apache-2.0
// There is no empty Plan: it comes from plan(problem, device).
// expect: no matching function for call to .fattn::Plan::Plan\(\)
#include "fattn/fattn.hpp"

#ifdef FATTN_MISUSE
fattn::Plan make() { return fattn::Plan(); }
#else
fattn::Plan make() { return fattn::plan({}, fattn::h100()); }
#endif
