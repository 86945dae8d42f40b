// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything not marked is hidden (-fvisibility=hidden); the static library needs no marks.
#if defined(__GNUC__)
#define FATTN_EXPORT __attribute__((visibility("default")))
#else
#define FATTN_EXPORT
#endif
