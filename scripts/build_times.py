#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The slowest steps of the last build, from ninja's log.

    scripts/build_times.py build/cuda [COUNT]"""

import pathlib
import sys


def main(arguments):
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit(__doc__)
    log = pathlib.Path(arguments[0]) / ".ninja_log"
    if not log.is_file():
        sys.exit(f"{log}: no such file; name a folder that ninja has built in")
    count = int(arguments[1]) if len(arguments) > 1 else 15
    steps = {}  # one command may have several outputs: the hash tells
    for line in log.read_text(encoding="utf-8").splitlines()[1:]:
        start, end, _, output, command = line.split("\t")
        steps[command] = ((int(end) - int(start)) / 1000, output)
    for seconds, output in sorted(steps.values(), reverse=True)[:count]:
        print(f"{seconds:8.1f} s  {output}")
    total = sum(seconds for seconds, _ in steps.values())
    print(f"{total:8.1f} s  {len(steps)} steps, added up over all processors")


if __name__ == "__main__":
    main(sys.argv[1:])
