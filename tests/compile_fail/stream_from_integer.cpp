// SPDX-License-Identifier: Apache-2.0
// A stream is a CUDA stream or an executor; device numbers and thread counts are neither.
// expect: conversion from .int. to .fattn::Stream. is ambiguous
#include "fattn/fattn.hpp"

#ifdef FATTN_MISUSE
fattn::Stream stream = 1;
#else
fattn::Stream stream = nullptr;
#endif
