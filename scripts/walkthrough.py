#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts what `fattn walk` prints into docs/walkthrough.md: each ```walk block keeps its first line, which says where in the
output it begins, and ends where the next one begins. The command is the document's own ```sh block.

    scripts/walkthrough.py [BUILD]     BUILD: a build with the tool, build/cpu unless said"""

import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```walk\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main(arguments):
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    build = pathlib.Path(arguments[0]) if arguments else ROOT / "build/cpu"
    document = ROOT / "docs/walkthrough.md"
    text = document.read_text(encoding="utf-8")
    command = shlex.split(re.search(r"^```sh\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL).group(1))
    if not (build / command[0]).is_file():
        sys.exit(f"{build / command[0]}: no such file; name a build with the tool")
    printed = subprocess.run([build / command[0], *command[1:]], check=True, capture_output=True, text=True).stdout
    lines = printed.splitlines()

    begins, position = [], 0
    for block in BLOCK.findall(text):
        first = block.splitlines()[0]
        try:
            position = lines.index(first, position)
        except ValueError:
            sys.exit(f"{document}: the output has no line \"{first}\" after the block before")
        begins.append(position)
        position += 1
    if not begins or begins[0] != 0:
        sys.exit(f"{document}: the first block must begin with \"{lines[0]}\"")
    pieces = iter("\n".join(lines[begin:end]).strip("\n") for begin, end in zip(begins, begins[1:] + [len(lines)]))
    document.write_text(BLOCK.sub(lambda _: f"```walk\n{next(pieces)}\n```", text), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
