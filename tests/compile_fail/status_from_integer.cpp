// SPDX-License-Identifier: Apache-2.0
// The status list is closed: an integer does not become one by itself.
// expect: cannot convert .int. to .fattn::Status.
#include "fattn/fattn.hpp"

#ifdef FATTN_MISUSE
fattn::Status status = 2;
#else
fattn::Status status = fattn::Status::unsupported;
#endif
