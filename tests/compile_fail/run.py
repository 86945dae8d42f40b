#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""run.py COMPILER INCLUDE_DIR CASE.cpp: the case compiles as it is and, with -DFATTN_MISUSE, is refused with a message
that matches the pattern of its line `// expect: <regular expression>`."""

import re
import subprocess
import sys


def compile_case(compiler, include, case, *options):
    return subprocess.run([compiler, "-std=c++20", "-fsyntax-only", f"-I{include}", *options, case],
                          capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, check=False)


def main(compiler, include, case):
    with open(case, encoding="utf-8") as file:
        pattern = re.search(r"^// expect: (.+)$", file.read(), re.MULTILINE)
    if not pattern:
        sys.exit(f"{case}: no line '// expect: <regular expression>'")
    proper = compile_case(compiler, include, case)
    if proper.returncode:
        sys.exit(f"{case}: does not compile even without the misuse:\n{proper.stderr}")
    misuse = compile_case(compiler, include, case, "-DFATTN_MISUSE")
    if not misuse.returncode:
        sys.exit(f"{case}: the misuse compiles")
    if not re.search(pattern.group(1), misuse.stderr):
        sys.exit(f"{case}: refused, but no message matches '{pattern.group(1)}':\n{misuse.stderr}")
    print(pattern.group(0))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
