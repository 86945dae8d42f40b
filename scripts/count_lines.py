#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lines of each room, and the counts that predict fear: longest file, comments, `if constexpr`, template parameters.

    scripts/count_lines.py [ROOT]"""

import collections
import pathlib
import re
import sys

from check_house import template_parameters, tracked, without_comments

CODE = {".c", ".h", ".hpp", ".cpp", ".cu", ".cuh", ".py", ".in"}


def room(name):
    parts = name.split("/")
    if parts[0] == "src":
        return "/".join(parts[:3] if parts[1] == "cuda" and len(parts) > 3 else parts[:2])
    return parts[0]


def main(arguments):
    root = pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).resolve().parent.parent)
    rooms = collections.defaultdict(list)
    for name in tracked(root):
        if pathlib.PurePath(name).suffix not in CODE:
            continue
        text = (root / name).read_text(encoding="utf-8")
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        code = without_comments(text)
        rooms[room(name)].append({
            "name": name,
            "lines": text.count("\n"),
            "filled": len(lines),
            "comments": sum(line.startswith(("//", "#!", "# ", "/*")) for line in lines),
            "constexpr": len(re.findall(r"\bif constexpr\b", code)),
            "parameters": max((count for _, count in template_parameters(code)), default=0),
        })
    row = "{:<20}{:>7}{:>7}{:>10}{:>14}{:>12}  {}"
    print(row.format("room", "files", "lines", "comments", "if constexpr", "parameters", "longest file"))
    for each, files in sorted(rooms.items()):
        longest = max(files, key=lambda file: file["lines"])
        share = sum(file["comments"] for file in files) / max(1, sum(file["filled"] for file in files))
        print(row.format(each, len(files), sum(file["lines"] for file in files), f"{share:.0%}",
                         max(file["constexpr"] for file in files), max(file["parameters"] for file in files),
                         f"{longest['name']} ({longest['lines']})"))
    everything = [file for files in rooms.values() for file in files]
    print(row.format("all", len(everything), sum(file["lines"] for file in everything), "", "", "", "").rstrip())


if __name__ == "__main__":
    main(sys.argv[1:])
