#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# merge_runtime.sh CXX NM OBJCOPY OUT RUNTIME OBJECT...: one object of the library's objects and what they use of the
# CUDA runtime, whose names become local.
set -eu
cxx=$1 nm=$2 objcopy=$3 out=$4 runtime=$5
shift 5
"$nm" --defined-only --extern-only --format=posix "$runtime" | awk 'NF > 1 { print $1 }' | sort -u > "$out.names"
# The runtime's section groups are dissolved first: beside another copy of it in the same program, the linker would drop
# ours as a duplicate while our local names still point into it. Our own groups must stay: they are the C++ library's.
wanted=$("$nm" --undefined-only --format=posix "$@" | awk 'NF > 1 { print $1 }' | sort -u | comm -12 - "$out.names" |
  sed 's/^/-Wl,-u,/')
# shellcheck disable=SC2086  # one option a word
"$cxx" -r -nostdlib -Wl,--force-group-allocation $wanted -o "$out.runtime.o" "$runtime"
"$cxx" -r -nostdlib -o "$out.tmp" "$@" "$out.runtime.o"
"$objcopy" --localize-symbols="$out.names" "$out.tmp" "$out"
rm -f "$out.tmp" "$out.names" "$out.runtime.o"
