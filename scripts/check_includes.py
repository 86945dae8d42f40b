#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds every #include to the arrows of the house (docs/architecture.md).

    scripts/check_includes.py [ROOT]      exit 1 and one line for each include that goes against an arrow

A quoted include is written from include/ or src/ (tools/fattn and tests also from their own folder) and names a file
that exists. Which rooms it may name is the table below; what is in angle brackets is only restricted for the public
headers and the algebra, which take nothing but the standard library."""

import pathlib
import re
import sys

PUBLIC = r"fattn/(?!device/).*"
ALGEBRA = r"algebra/.*"
SEAM = r"core/(kernel|accelerator|lower|tiles)\.hpp"  # what a room knows of core
LAUNCH = r"cuda/(launch|device)\.hpp"

# Longest prefix first. A room always may include itself, except where it is listed with what it may.
ARROWS = [
    ("include/fattn/device/", [r"fattn/.*", ALGEBRA, r"cuda/(ptx|tile)/.*"]),
    ("include/", [PUBLIC]),
    ("src/algebra/", [ALGEBRA]),
    ("src/core/", [r"core/.*", ALGEBRA, PUBLIC, r"kernel_table\.inc"]),
    ("src/reference/", [r"reference/.*", ALGEBRA, SEAM, PUBLIC]),
    ("src/cpu/", [r"cpu/.*", ALGEBRA, SEAM, PUBLIC]),
    ("src/no_cuda/", [r"no_cuda/.*", SEAM, PUBLIC]),
    ("src/cuda/ptx/", [r"cuda/ptx/.*"]),
    ("src/cuda/tile/", [r"cuda/(tile|ptx)/.*", ALGEBRA]),
    ("src/cuda/common/", [r"cuda/(common|tile|ptx)/.*", LAUNCH, ALGEBRA, SEAM, PUBLIC]),
    ("src/cuda/sm", [LAUNCH, r"cuda/(common|tile|ptx)/.*", ALGEBRA, SEAM, PUBLIC]),  # and its own folder, below
    ("src/cuda/", [r"cuda/[^/]*", r"cuda/(tile|ptx)/.*", ALGEBRA, SEAM, PUBLIC]),
    ("src/verify/", [r"verify/.*", ALGEBRA, PUBLIC]),
]
FREE = ("tools/", "tests/", "bench/", "cmake/")
STANDARD_ONLY = ("include/", "src/algebra/")
SUFFIXES = {".c", ".h", ".hpp", ".cpp", ".cu", ".cuh", ".in"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)
STANDARD = re.compile(r"[a-z0-9_]+|(stddef|stdint|stdbool)\.h")


def allowed(path):
    for prefix, patterns in ARROWS:
        if path.startswith(prefix):
            own = re.match(r"src/(cuda/sm\d+/)", path)
            return patterns + ([re.escape(own.group(1)) + ".*"] if own else [])
    return None


def check(root, path):
    """Yields (line, complaint)."""
    text = (root / path).read_text(encoding="utf-8")
    patterns = allowed(path)
    for match in INCLUDE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        kind, name = match.groups()
        if kind == "<":
            if name.startswith("fattn/") or (root / "src" / name).exists():
                yield line, f"<{name}> is ours: write it in quotes"
            elif path.startswith(STANDARD_ONLY) and "/device/" not in path and not STANDARD.fullmatch(name):
                yield line, f"<{name}> is not of the standard library"
            continue
        if patterns is None:
            continue
        if not any(re.fullmatch(pattern, name) for pattern in patterns):
            yield line, f'"{name}" goes against the arrows: this room includes {", ".join(patterns)}'
        elif name != "kernel_table.inc" and not any((root / base / name).exists() for base in ("include", "src")):
            yield line, f'"{name}" is not a path from include/ or src/'


def files(root):
    for top in ("include", "src", "cmake"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                yield path.relative_to(root).as_posix()


def main(arguments):
    root = pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).resolve().parent.parent)
    count = 0
    wrong = []
    for path in files(root):
        count += 1
        if path.startswith("src/") and allowed(path) is None:
            wrong.append(f"{path}:1: no arrows are drawn for this room: add it to scripts/check_includes.py")
        wrong += [f"{path}:{line}: {complaint}" for line, complaint in check(root, path)]
    for line in wrong:
        print(line)
    print(f"{count} files, {len(wrong)} includes against the arrows")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
