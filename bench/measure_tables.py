# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of what bench/measures.py counted. Each table holds the newest run that counted such things."""

import re

import problem_text

GIB = 2**30


def said_length(seqlen):
    return f"{seqlen // (1 << 20)}M" if seqlen >= 1 << 20 else f"{seqlen // 1024}k" if seqlen >= 1024 else str(seqlen)


def said_bytes(value):
    return "-" if value is None else f"{value / GIB:.3g} GiB" if value >= GIB else f"{value / 2**20:.3g} MiB"


def newest(records, measure):
    """{(problem, impl, measure): value} of the newest run with a measure that matches, and one of its records."""
    fitting = [record for record in records if re.fullmatch(measure, record["measure"])]
    if not fitting:
        return {}, None
    run = max(record["run"] for record in fitting)
    chosen = [record for record in fitting if record["run"] == run]
    return {(r["problem"], r["impl"], r["measure"]): r["value"] for r in chosen}, chosen[0]


def note(record, *words):
    origin = f"{record['device']}, {record['date']}, commit `{record['commit'][:12]}`, run `{record['run']}`."
    return " ".join([origin, *words])


def by_length(values, direction):
    """Problems of a direction, by length: [(seqlen, text), ...]."""
    texts = {text for text, _, _ in values if text.startswith(direction)}
    return sorted((problem_text.parse(text).seqlen_q, text) for text in texts)


def lengths_table(records, measure, extra):
    """Rows are lengths; for each direction ours, the standard's and how many times ours that is."""
    values, first = newest(records, rf"{measure}|workspace_bytes" if extra else measure)
    if first is None:
        return "No results recorded yet."
    directions = [d for d in ("fwd", "bwd") if by_length(values, d)]
    head = ["seqlen"]
    for direction in directions:
        name = {"fwd": "forward", "bwd": "backward"}[direction]
        head += [f"{name}: fattn"] + (["of it workspace"] if extra else []) + ["standard", "times"]
    rows = {}
    for place, direction in enumerate(directions):
        width = (len(head) - 1) // len(directions)
        for seqlen, text in by_length(values, direction):
            row = rows.setdefault(seqlen, ["-"] * (len(head) - 1))
            ours, theirs = (values.get((text, impl, measure)) for impl in ("fattn", "standard"))
            cells = [said_bytes(ours)]
            if extra:
                cells.append(said_bytes(values.get((text, "fattn", "workspace_bytes"))))
            cells += [said_bytes(theirs), f"{theirs / ours:.3g}" if ours and theirs else "-"]
            row[place * width : (place + 1) * width] = cells
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join([said_length(s)] + cells) + " |" for s, cells in sorted(rows.items())]
    example = by_length(values, directions[0])[0][1]
    return "\n".join(lines + ["", note(first, f"The first line is `{example}`.")])


def errors_table(records):
    """The median RMSE of five seeds and how many times cuDNN's that is; a row for each data, dtype, head_dim and mask."""
    values, first = newest(records, r"rmse_.*")
    if first is None:
        return "No results recorded yet."
    rows = {}
    for text, impl, measure in values:
        if impl != "fattn":
            continue
        _, output, kind = measure.split("_")
        problem = problem_text.parse(text)
        ours, theirs = values[text, impl, measure], values.get((text, "cudnn", measure))
        cell = f"{ours:.3g}" + (f" ({ours / theirs:.3f})" if theirs else "")
        mask = "full" if problem.full else "causal"
        rows.setdefault((kind, problem.dtype, problem.head_dim, mask), {})[output] = cell
    outputs = ("o", "dq", "dk", "dv")
    lines = ["| data | dtype | head_dim | mask | " + " | ".join(outputs) + " |", "|" + "---|" * (4 + len(outputs))]
    for where, cells in rows.items():
        lines.append("| " + " | ".join([*map(str, where), *(cells.get(name, "-") for name in outputs)]) + " |")
    return "\n".join(lines + ["", note(first, "RMSE against fp64, median of five seeds; in brackets how many times cuDNN's.")])


def host_table(records):
    values, first = newest(records, r"host_.*")
    if first is None:
        return "No results recorded yet."
    lines = ["| problem | run() | launch of an empty kernel | run() beyond it | plan() |", "|---|---|---|---|---|"]
    for text in dict.fromkeys(text for text, _, _ in values):
        run, launch, plan = (values[text, "fattn", f"host_{name}_us"] for name in ("run", "launch", "plan"))
        lines.append(f"| `{text}` | {run:.2f} us | {launch:.2f} us | {run - launch:.2f} us | {plan:.1f} us |")
    return "\n".join(lines + ["", note(first)])


def tables(records):
    return {
        "memory": lengths_table(records, "allocated_bytes", extra=True),
        "traffic": lengths_table(records, "dram_bytes", extra=False),
        "errors": errors_table(records),
        "host": host_table(records),
    }


def draw(records, folder, save):
    """Memory and traffic by length, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for name, measure, title in (
        ("memory", "allocated_bytes", "bytes allocated"),
        ("traffic", "dram_bytes", "bytes of DRAM"),
    ):
        values, first = newest(records, measure)
        if first is None:
            continue
        figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
        for axis, direction in zip(axes, ("fwd", "bwd")):
            for impl, colour in (("fattn", "#d62728"), ("standard", "#7f7f7f")):
                points = [(s, values[text, impl, measure]) for s, text in by_length(values, direction)
                          if (text, impl, measure) in values]
                axis.plot(*zip(*points), marker="o", markersize=3, color=colour, label=impl)
            lengths = [s for s, _ in by_length(values, direction)]
            axis.set_xscale("log", base=2)
            axis.set_yscale("log", base=10)
            axis.set_xticks(lengths, [said_length(s) for s in lengths], fontsize=7)
            axis.grid(alpha=0.3)
            axis.set_title({"fwd": "forward", "bwd": "backward"}[direction], fontsize=9)
            axis.set_xlabel("seqlen", fontsize=8)
        axes[0].set_ylabel(title, fontsize=8)
        axes[0].legend(fontsize=8)
        save(figure, folder / f"{name}.png")
        plt.close(figure)
