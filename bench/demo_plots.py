#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Time and memory against sequence length, beside standard attention.

    bench/demo_plots.py scaling.jsonl scaling.png

Each line of scaling.jsonl is one measurement, an object with the fields

    seqlen    int     queries = keys of the measured problem
    impl      str     "fattn", or "standard": softmax(Q K^T) V with the whole score matrix in memory
    time_ms   number  median wall time of one forward pass; null when it was not run (too little memory)
    bytes     int     memory of the call: inputs, outputs and workspace, or inputs, outputs and the score matrix

and, where there are several, "direction": "forward" or "backward" (default forward). Other fields are ignored."""

import argparse
import json
import pathlib
import sys

COLOURS = {"fattn": "#d62728", "standard": "#7f7f7f"}


def read(path):
    """{(direction, impl): [(seqlen, time_ms or None, bytes), ...]} in order of seqlen."""
    series = {}
    for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key = (row.get("direction", "forward"), row["impl"])
            point = (int(row["seqlen"]), None if row["time_ms"] is None else float(row["time_ms"]), int(row["bytes"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SystemExit(f"{path}:{number}: not a measurement: {error!r}") from None
        series.setdefault(key, []).append(point)
    if not series:
        raise SystemExit(f"{path}: no measurements")
    return {key: sorted(points) for key, points in series.items()}


def draw(series, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    lengths = sorted({s for points in series.values() for s, _, _ in points})
    for (direction, impl), points in sorted(series.items()):
        style = {
            "label": impl if direction == "forward" else f"{impl}, {direction}",
            "marker": "o",
            "markersize": 4,
            "color": COLOURS.get(impl),
            "linestyle": "-" if direction == "forward" else "--",
        }
        timed = [(s, t) for s, t, _ in points if t is not None]
        time.plot([s for s, _ in timed], [t for _, t in timed], **style)
        memory.plot([s for s, _, _ in points], [b / 2**20 for _, _, b in points], **style)
    for axis, title, unit in ((time, "time", "ms"), (memory, "memory of the call", "MiB")):
        axis.set_title(title, fontsize=10)
        axis.set_ylabel(unit)
        axis.set_xlabel("sequence length")
        axis.set_xscale("log", base=2)
        axis.set_xticks(lengths, [str(s) for s in lengths], fontsize=8)
        axis.set_yscale("log")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=pathlib.Path, help="scaling.jsonl")
    parser.add_argument("picture", type=pathlib.Path, help="PNG to write")
    options = parser.parse_args(arguments)
    if not options.measurements.is_file():
        raise SystemExit(f"{options.measurements}: no such file")
    series = read(options.measurements)
    try:
        draw(series, options.picture)
    except ImportError as error:
        raise SystemExit(f"pictures need matplotlib: {error}") from None
    print(options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
