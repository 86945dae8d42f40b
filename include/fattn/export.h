/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FATTN_EXPORT_H
#define FATTN_EXPORT_H

/* Everything not marked is hidden (-fvisibility=hidden); the static library needs no marks. */
#if defined(__GNUC__)
#define FATTN_EXPORT __attribute__((visibility("default")))
#else
#define FATTN_EXPORT
#endif

#endif /* FATTN_EXPORT_H */
