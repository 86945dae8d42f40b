// SPDX-License-Identifier: Apache-2.0
#pragma once

// Functions defined between the two are compiled for more instructions than the rest of the file. Everything between
// them lives in a namespace of its own (FATTN_TARGET), and every header of others is included before: otherwise the
// linker might keep the AVX2 copy of a shared inline function and run it on a machine without AVX2.
//
//   FATTN_BEGIN_TARGET("avx2,fma,f16c")
//   #include "cpu/forward-inl.hpp"
//   FATTN_END_TARGET
#define FATTN_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define FATTN_BEGIN_TARGET(features) \
  FATTN_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define FATTN_END_TARGET FATTN_PRAGMA(clang attribute pop)
#define FATTN_UNROLL(count) FATTN_PRAGMA(unroll count)
#else
#define FATTN_BEGIN_TARGET(features) FATTN_PRAGMA(GCC push_options) FATTN_PRAGMA(GCC target(features))
#define FATTN_END_TARGET FATTN_PRAGMA(GCC pop_options)
#define FATTN_UNROLL(count) FATTN_PRAGMA(GCC unroll count)
#endif
// For functions whose object must stay in registers: one call that is none keeps it in memory for all.
#define FATTN_INLINE inline __attribute__((always_inline))
