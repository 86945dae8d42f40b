#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tidy.sh BUILD_DIR SOURCE: clang-tidy 14 finds nothing; 77 (skipped) without the tool or for a file not in this build.
set -u
command -v clang-tidy-14 >/dev/null || { echo "SKIPPED: clang-tidy-14 is not installed"; exit 77; }
grep -qF "\"$2\"" "$1/compile_commands.json" || { echo "SKIPPED: $2 is not compiled in $1"; exit 77; }
exec clang-tidy-14 --quiet -p "$1" --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-unknown-pragmas "$2"
