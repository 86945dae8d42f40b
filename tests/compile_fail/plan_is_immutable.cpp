// SPDX-License-Identifier: Apache-2.0
// A Plan is shared by threads, so what it holds cannot be changed.
// expect: assignment of member .fattn::Problem::batch. in read-only object
#include "fattn/fattn.hpp"

void change(fattn::Plan& plan) {
#ifdef FATTN_MISUSE
  plan.problem().batch = 2;
#else
  fattn::Problem problem = plan.problem();
  problem.batch = 2;
  plan = fattn::plan(problem, plan.device());
#endif
}
