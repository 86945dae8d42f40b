#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No function outside the targets' namespaces may hold VEX or EVEX instructions, each target must hold some, and its
micro-kernels must keep their sums in registers: hardly a vector goes to the stack.

    target_region.py OBJDUMP NAMESPACE[,NAMESPACE...] OBJECT..."""

import re
import subprocess
import sys

FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s+[0-9a-f]+:\s+(v[a-z0-9]+)\b")
NOT_VECTOR = {"verr", "verw"}
MICRO_KERNEL = re.compile(r"::(qk<|pv\()")
SPILLS_ALLOWED = 6  # in one function; sums kept in memory would be all 12 of them
SPILL = re.compile(r"%[yz]mm\d+,-?(0x[0-9a-f]+)?\(%r[sb]p\)")


def main(objdump, namespaces, *objects):
    outside, spills = {}, {}
    inside = dict.fromkeys(namespaces.split(","), 0)
    for path in objects:
        listing = subprocess.run([objdump, "-d", "-C", "--no-show-raw-insn", path], capture_output=True, text=True,
                                 check=True).stdout
        function = ""
        for line in listing.splitlines():
            if match := FUNCTION.match(line):
                function = match.group(1)
            elif (match := INSTRUCTION.match(line)) and match.group(1) not in NOT_VECTOR:
                if namespace := next((each for each in inside if each in function), None):
                    inside[namespace] += 1
                    if MICRO_KERNEL.search(function) and SPILL.search(line):
                        spills[function] = spills.get(function, 0) + 1
                else:
                    outside.setdefault(function, match.group(1))
    for function, instruction in outside.items():
        print(f"{instruction} in {function}")
    spilled = {function: count for function, count in spills.items() if count > SPILLS_ALLOWED}
    for function, count in spilled.items():
        print(f"{count} spills in {function}")
    for namespace, count in inside.items():
        print(f"{count} vector instructions inside {namespace}")
    print(f"{len(outside)} functions outside with some")
    return 1 if outside or spilled or not all(inside.values()) else 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
