// SPDX-License-Identifier: Apache-2.0
// Kinds are distinct types, so that arguments in the wrong place do not compile.
// expect: cannot convert .fattn::DType. to .fattn::Pass.
#include "fattn/fattn.hpp"

#ifdef FATTN_MISUSE
fattn::Problem problem{.pass = fattn::DType::bf16};
#else
fattn::Problem problem{.pass = fattn::Pass::backward, .dtype = fattn::DType::bf16};
#endif
