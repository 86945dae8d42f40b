// SPDX-License-Identifier: Apache-2.0
#pragma once

// Pure arithmetic is shared by host and device code; this is the only mark it needs.
#if defined(__CUDACC__)
#define FATTN_HD __host__ __device__ __forceinline__
#else
#define FATTN_HD inline
#endif
