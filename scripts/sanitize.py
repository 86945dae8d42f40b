#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run compute-sanitizer over `fattn check` for every sm90 row of a build, each on small problems that it accepts.

    scripts/sanitize.py build/cuda/fattn                       every row under memcheck, initcheck, synccheck, racecheck
    scripts/sanitize.py build/cuda/fattn --tools racecheck --rows 'backward_.*d256' --jobs 4

Prints a JSON line for each row and tool: exit code, what the tool counted, seconds. A run that did not end in
--timeout seconds is said to be "unfinished" and counted, not passed over. Exit code 1 if any tool found anything, any row
gave a wrong answer or any run did not end.
"""
import argparse
import concurrent.futures
import json
import re
import subprocess
import sys
import time

TOOLS = ["memcheck", "initcheck", "synccheck", "racecheck"]


def problems(row):
    """Small problems for a row: every one is more than a tile in some direction, and has rows or keys left over."""
    name = re.fullmatch(r"sm90_(forward|backward)_(bf16|fp16)_d(\d+)(?:_dv(\d+))?_band(.*)", row)
    direction, dtype, d, dv, rest = name.groups()
    head = f"d{d}" + (f" dv{dv}" if dv else "")
    verb = "fwd" if direction == "forward" else "bwd"
    end = " lse" if verb == "fwd" else ""
    deterministic = ["", " deterministic"] if verb == "bwd" else [""]
    shapes = []
    if rest == "_long":
        return [f"{verb} b1 hq1 hk1 sq130 sk1600 {head} {dtype}{end}"]
    if "varlen" in rest:
        shapes.append(f"b2 hq1 hk1 sq90 sk140 {head} seqused=qk {dtype}")
        shapes.append(f"b2 hq2 hk1 sq140 sk140 {head} tq200 tk200 {dtype} causal")
        if "modified" in rest:
            shapes = [f"b1 hq2 hk1 sq70 sk140 {head} {dtype} causal softcap=20", f"{shapes[0]} alibi", shapes[1]]
    else:
        shapes.append(f"b1 hq2 hk1 sq130 sk260 {head} {dtype} causal")
    return [f"{verb} {shape}{word}{end}" for shape in shapes for word in deterministic]


def run(options, row, tool):
    sanitizer = [] if tool == "none" else ["compute-sanitizer", "--tool", tool, "--print-limit", "5",
                                           "--error-exitcode", "9"]
    command = [*sanitizer, options.fattn, "check", *problems(row), "--device", "cuda", "--kernel", row, "--seed", "1"]
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
        text, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        text, code = (late.stdout or b"").decode(), "unfinished"
    found = re.findall(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", text)
    record = {"row": row, "tool": tool, "exit": code, "found": sum(int(a or b) for a, b in found) if found else None,
              "checked": len(re.findall(rf"^  {row} ", text, re.M)), "problems": len(problems(row)),
              "seconds": round(time.monotonic() - start, 1)}
    if code != 0:
        record["says"] = [line for line in text.splitlines() if line.startswith("=========") or "MISS" in line][:12]
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fattn", help="the tool of a CUDA build")
    parser.add_argument("--rows", default="", help="a regular expression that a row's name must hold")
    parser.add_argument("--tools", default=",".join(TOOLS), help="of compute-sanitizer; 'none' runs without it")
    parser.add_argument("--jobs", type=int, default=4, help="runs side by side")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one run")
    options = parser.parse_args()
    info = subprocess.run([options.fattn, "info"], capture_output=True, text=True, check=True).stdout
    rows = [row for row in re.findall(r"^ *(sm90_\w+_band\w*) ", info, re.M) if re.search(options.rows, row)]
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(run, options, row, tool) for tool in options.tools.split(",") for row in rows]
        for done in concurrent.futures.as_completed(runs):
            record = done.result()
            bad += record["exit"] != 0 or record["checked"] != record["problems"]
            print(json.dumps(record), flush=True)
    print(f"{len(runs)} runs of {len(rows)} rows, {bad} with something found or not seen to the end", file=sys.stderr)
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
