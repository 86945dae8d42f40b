#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is promised of a wheel: its tag, its size, what it links, how long it takes to import, beside numpy alone.

    pip install auditwheel numpy && bench/wheel_check.py fattn-*.whl [--python PYTHON]

Prints one line for each promise; exit 1 if one is broken. PYTHON, with numpy, is the one that imports it; binutils reads
the compiled part."""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import zipfile

LIMIT_BYTES, LIMIT_MS = 60 << 20, 30
ALLOWED = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "ld-linux-x86-64.so.2",
           "ld-linux-aarch64.so.1"}
IMPORT = """import time, numpy
begin = time.process_time()
import fattn
print((time.process_time() - begin) * 1e3)
import sys
assert not {"torch", "jax", "transformers"} & set(sys.modules)"""


def output(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable)
    arguments = parser.parse_args()
    lines = []
    size = arguments.wheel.stat().st_size
    lines.append((size <= LIMIT_BYTES, f"size {size / 2**20:.1f} MiB, at most {LIMIT_BYTES >> 20}"))
    shown = " ".join(output(sys.executable, "-m", "auditwheel", "show", str(arguments.wheel)).split())
    tag = re.search(r'platform tag[^"]*"(\w+)"', shown)
    lines.append((bool(tag) and tag[1].startswith("manylinux"), f"tag {tag[1] if tag else shown}"))
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(arguments.wheel).extractall(folder)
        (core,) = pathlib.Path(folder).glob("fattn/_core*.so")
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", str(core))))
        lines.append((needed <= ALLOWED, f"links {' '.join(sorted(needed))}"))
        undefined = [line.split()[-1] for line in output("nm", "-D", "--undefined-only", str(core)).splitlines()]
        foreign = [name for name in undefined if re.search(r"c10|torch|^_ZN2at|^cuda|^cu[A-Z]|^nv|XLA|^_ZNSt|^_ZNKSt", name)]
        lines.append((not foreign, f"{len(undefined)} undefined symbols, of frameworks, CUDA or C++ libraries: {foreign or 'none'}"))
        times = [float(output(arguments.python, "-c", IMPORT, cwd="/", env={"PYTHONPATH": folder, "PATH": "/usr/bin"}))
                 for _ in range(11)]
        lines.append((statistics.median(times) <= LIMIT_MS, f"import {statistics.median(times):.1f} ms of the processor "
                      f"beyond numpy (median of {len(times)}), at most {LIMIT_MS}"))
    print(arguments.wheel.name)
    for good, text in lines:
        print(f"{'ok    ' if good else 'BROKEN'} {text}")
    return 0 if all(good for good, _ in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
