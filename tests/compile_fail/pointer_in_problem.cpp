// SPDX-License-Identifier: Apache-2.0
// A Problem says shapes; data belongs to Buffers.
// expect: no non-static data member named .q.
#include "fattn/fattn.hpp"

const float* data = nullptr;
#ifdef FATTN_MISUSE
fattn::Problem problem{.q = data};
#else
fattn::Buffers buffers{.q = data};
#endif
