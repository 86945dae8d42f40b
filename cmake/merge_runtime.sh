#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# merge_runtime.sh CXX NM OBJCOPY OUT RUNTIME OBJECT...: one object of the library's objects and what they use of the
# CUDA runtime, whose names become local.
set -eu
cxx=$1 nm=$2 objcopy=$3 out=$4 runtime=$5
shift 5
"$cxx" -r -nostdlib -o "$out.tmp" "$@" "$runtime"
"$nm" --defined-only --extern-only --format=posix "$runtime" | awk 'NF > 1 { print $1 }' | sort -u > "$out.names"
"$objcopy" --localize-symbols="$out.names" "$out.tmp" "$out"
rm -f "$out.tmp" "$out.names"
