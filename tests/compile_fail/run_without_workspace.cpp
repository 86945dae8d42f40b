// SPDX-License-Identifier: Apache-2.0
// The workspace is never optional: a plan that needs none says so by zero bytes.
// expect: too few arguments to function .void fattn::run
#include "fattn/fattn.hpp"

void go(const fattn::Plan& plan, const fattn::Buffers& buffers) {
#ifdef FATTN_MISUSE
  fattn::run(plan, buffers);
#else
  fattn::run(plan, buffers, {});
#endif
}
