#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compiler launcher: runs a CUDA compilation, keeps what it prints beside the object as <object>.ptxas.log (registers,
# spills and serialised wgmma are read from there by scripts/check_sass.py), and shows only warnings and failures; C7519
# merely tells of an arrive that the assembler added.
object=
previous=
for word in "$@"; do
  [ "$previous" = "-o" ] && object=$word
  previous=$word
done
text=$("$@" 2>&1)
status=$?
[ -n "$object" ] && printf '%s\n' "$text" >"$object.ptxas.log"
if [ $status -ne 0 ]; then
  printf '%s\n' "$text" >&2
else
  printf '%s\n' "$text" | grep -E 'warning|C75[0-9][0-9]|[1-9][0-9]* bytes spill' | grep -v C7519 >&2
fi
exit $status
