#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No function outside the target's namespace may hold VEX or EVEX instructions, and the target itself must hold some.

    target_region.py OBJDUMP NAMESPACE OBJECT..."""

import re
import subprocess
import sys

FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s+[0-9a-f]+:\s+(v[a-z0-9]+)\b")
NOT_VECTOR = {"verr", "verw"}


def main(objdump, namespace, *objects):
    outside, inside = {}, 0
    for path in objects:
        listing = subprocess.run([objdump, "-d", "-C", "--no-show-raw-insn", path], capture_output=True, text=True,
                                 check=True).stdout
        function = ""
        for line in listing.splitlines():
            if match := FUNCTION.match(line):
                function = match.group(1)
            elif (match := INSTRUCTION.match(line)) and match.group(1) not in NOT_VECTOR:
                if namespace in function:
                    inside += 1
                else:
                    outside.setdefault(function, match.group(1))
    for function, instruction in outside.items():
        print(f"{instruction} in {function}")
    print(f"{inside} vector instructions inside {namespace}, {len(outside)} functions outside with some")
    return 1 if outside or not inside else 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
