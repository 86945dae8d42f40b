#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns bench/results/*.jsonl into tables and pictures.

    bench/report.py            rewrites the tables between `<!-- bench:begin NAME -->` and `<!-- bench:end NAME -->` in
                               README.md and docs/*.md, draws docs/img/*.png (needs matplotlib), prints geometric means
    bench/report.py --check    writes nothing; exits 1 when a table is not what the results say

NAME is a key of VIEWS, `summary` (a row for each of them) or a table of measure_tables.py. A table holds one run: things that were timed together."""

import argparse
import dataclasses
import pathlib
import re
import sys

import measure_records
import measure_tables
import problem_text
import records

ROOT = pathlib.Path(__file__).resolve().parent.parent
LABELS = {
    "fattn": "fattn",
    "cudnn": "cuDNN",
    "fa2": "FA2",
    "fa4": "FA4",
    "fa3": "FA3",
    "torch_cpu": "PyTorch CPU",
    "standard": "standard",
}
COLOURS = {
    "fattn": "#d62728",
    "cudnn": "#2ca02c",
    "fa2": "#9467bd",
    "fa4": "#1f77b4",
    "fa3": "#ff7f0e",
    "torch_cpu": "#1f77b4",
    "standard": "#7f7f7f",
}


@dataclasses.dataclass(frozen=True)
class View:
    """One table (and its pictures): the problems of a case file in one direction, on one kind of device."""

    cases: str
    direction: str  # fwd, bwd
    cpu: bool
    peer: str  # the yardstick of the ratio column
    grid: bool  # rows are (head_dim, mask, seqlen), else whole problem lines
    row: str = ""  # how the name of fattn's kernel begins: machines of unlike instructions have tables of their own


VIEWS = {
    "forward": View("forward_grid.txt", "fwd", cpu=False, peer="cudnn", grid=True),
    "backward": View("backward_grid.txt", "bwd", cpu=False, peer="cudnn", grid=True),
    "breadth": View("forward_breadth.txt", "fwd", cpu=False, peer="fa2", grid=False),
    "cpu_forward": View("cpu.txt", "fwd", cpu=True, peer="torch_cpu", grid=False, row="cpu_amx_"),
    "cpu_backward": View("cpu.txt", "bwd", cpu=True, peer="torch_cpu", grid=False, row="cpu_amx_"),
    "avx512_forward": View("cpu.txt", "fwd", cpu=True, peer="torch_cpu", grid=False, row="cpu_avx512_"),
    "avx512_backward": View("cpu.txt", "bwd", cpu=True, peer="torch_cpu", grid=False, row="cpu_avx512_"),
}


@dataclasses.dataclass
class Cells:
    """What one run says about a view: cells[problem][impl] is a record; problems in the order of the case file."""

    run: str
    problems: list
    cells: dict

    @property
    def impls(self):
        return [impl for impl in records.IMPLS if any(impl in row for row in self.cells.values())]

    def ratios(self, peer):
        return [
            row["fattn"]["tflops"] / row[peer]["tflops"]
            for row in self.cells.values()
            if "fattn" in row and peer in row
        ]


def said(device):
    """As a person would."""
    return device.replace(", 1 threads", ", 1 thread")


def newest(view, all_records, cases):
    """The newest run that fits: fattn and a peer side by side, in at least four fifths as many cells as the fullest run has.
    So a run over one problem does not push a whole grid out of a table. None without such a run."""
    problems = [problem_text.parse(line) for line in cases]
    wanted = {problem for problem in problems if problem.direction == view.direction}

    def key(record):  # two devices of a host may begin their runs in the same second
        return record["run"], record["device"]

    def runs_of(row):
        return {key(record) for record in all_records if (record["kernel"] or "").startswith(row)}

    cpu_runs, those = runs_of("cpu_"), runs_of(view.row)
    runs = {}
    for record in all_records:
        if (key(record) in cpu_runs) != view.cpu or key(record) not in those:
            continue
        problem = problem_text.parse(record["problem"])
        if problem in wanted:
            runs.setdefault(key(record), {}).setdefault(problem, {})[record["impl"]] = record
    sizes = {run: sum("fattn" in row and len(row) > 1 for row in cells.values()) for run, cells in runs.items()}
    fitting = [run for run, size in sizes.items() if size and 5 * size >= 4 * max(sizes.values())]
    if not fitting:
        return None
    run = max(fitting)
    return Cells(run[0], [problem for problem in problems if problem in runs[run]], runs[run])


def mask_name(problem):
    return "full" if problem.full else "causal" if problem.causal else "banded"


def speed(record, view):
    return f"{record['tflops'] * 1e3:.0f}" if view.cpu else f"{record['tflops']:.0f}"


def table(view, cells):
    """Markdown between the markers."""
    if cells is None:
        return "No results recorded yet."
    first = next(iter(cells.cells[cells.problems[0]].values()))
    versions = {}
    for row in cells.cells.values():
        for impl, record in row.items():
            versions[impl] = record["impl_version"]
    unit = "GFLOP/s" if view.cpu else "TFLOP/s"
    impls = cells.impls
    head = ["head_dim", "mask", "seqlen"] if view.grid else ["problem"]
    head += [LABELS[impl] for impl in impls] + [f"fattn / {LABELS[view.peer]}"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for problem in cells.problems:
        row = cells.cells[problem]
        where = (
            [str(problem.head_dim), mask_name(problem), str(problem.seqlen_q)]
            if view.grid
            else [f"`{next(iter(row.values()))['problem']}`"]
        )
        numbers = [speed(row[impl], view) if impl in row else "-" for impl in impls]
        both = "fattn" in row and view.peer in row
        ratio = f"{row['fattn']['tflops'] / row[view.peer]['tflops']:.2f}" if both else "-"
        lines.append("| " + " | ".join(where + numbers + [ratio]) + " |")
    notes = [
        f"{said(first['device'])}, {first['date']}, commit `{first['commit'][:12]}`, run `{cells.run}`, {unit}, "
        "median of bursts timed in turn in one process (docs/benchmarks.md).",
        "Versions: " + ", ".join(f"{LABELS[impl]} {versions[impl]}" for impl in impls) + ".",
    ]
    means = [
        f"{records.geometric_mean(cells.ratios(impl)):.2f} of {LABELS[impl]} ({len(cells.ratios(impl))} cells)"
        for impl in impls
        if impl != "fattn" and cells.ratios(impl)
    ]
    if means:
        notes.append("Geometric mean of fattn: " + ", ".join(means) + ".")
    return "\n".join(lines + ["", " ".join(notes)])


def summary(chosen):
    """One row for each view that has results."""
    lines = ["| | device | fattn | beside its peer, geometric mean |", "|---|---|---|---|"]
    for name, view in VIEWS.items():
        cells = chosen[name]
        if cells is None or not (view.grid or view.cpu):
            continue
        ours = [row["fattn"] for row in cells.cells.values() if "fattn" in row]
        slow, fast = (speed(each(ours, key=lambda record: record["tflops"]), view) for each in (min, max))
        ratios = cells.ratios(view.peer)
        mean = f"{records.geometric_mean(ratios):.2f} of {LABELS[view.peer]}, {len(ratios)} shapes" if ratios else "-"
        dtypes = sorted({problem.dtype for problem in cells.problems})
        what = f"{ours[0]['direction']}, {', '.join(dtypes)}"
        unit = "GFLOP/s" if view.cpu else "TFLOP/s"
        lines.append(f"| {what} | {said(ours[0]['device'])} | {slow} to {fast} {unit} | {mean} |")
    return "\n".join(lines) if len(lines) > 2 else "No results recorded yet."


def rewrite(text, tables, where):
    """Fills every pair of markers in a page. Unknown names and unpaired markers are errors."""
    pattern = re.compile(r"<!-- bench:begin ([^ ]+) -->\n(.*?)<!-- bench:end \1 -->", re.DOTALL)
    marks = re.findall(r"<!-- bench:(?:begin|end) ([^ ]+) -->", text)
    if len(marks) != 2 * len(pattern.findall(text)):
        raise SystemExit(f"{where}: a bench marker has no partner among {marks}")
    for name in marks:
        if name not in tables:
            raise SystemExit(f"{where}: no table is called {name!r}; there are {', '.join(tables)}")
    return pattern.sub(
        lambda match: f"<!-- bench:begin {match[1]} -->\n{tables[match[1]]}\n<!-- bench:end {match[1]} -->", text
    )


def pages(root):
    return [path for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))] if path.exists()]


def save(figure, path):
    """PNG with a palette: a third of the size, no visible loss in line art."""
    import io
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(64).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")


def draw_grid(view, name, cells, folder):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    dims = sorted({problem.head_dim for problem in cells.problems})
    masks = [mask for mask in ("full", "causal") if any(mask_name(p) == mask for p in cells.problems)]
    for ratio in (False, True):
        figure, axes = plt.subplots(
            len(masks),
            len(dims),
            figsize=(3.4 * len(dims) + 0.6, 2.6 * len(masks) + 0.8),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for mask, row in zip(masks, axes):
            for dim, axis in zip(dims, row):
                here = sorted(
                    (p for p in cells.problems if p.head_dim == dim and mask_name(p) == mask), key=lambda p: p.seqlen_q
                )
                for impl in cells.impls:
                    points = [
                        (p.seqlen_q, cells.cells[p])
                        for p in here
                        if impl in cells.cells[p] and (not ratio or view.peer in cells.cells[p])
                    ]
                    values = [c[impl]["tflops"] / (c[view.peer]["tflops"] if ratio else 1) for _, c in points]
                    axis.plot(
                        [s for s, _ in points],
                        values,
                        marker="o",
                        markersize=3,
                        color=COLOURS[impl],
                        linewidth=2 if impl == "fattn" else 1,
                        label=LABELS[impl],
                    )
                axis.set_xscale("log", base=2)
                lengths = sorted({p.seqlen_q for p in cells.problems})
                axis.set_xticks(lengths, [f"{s // 1024}k" if s >= 1024 else str(s) for s in lengths], fontsize=8)
                axis.grid(alpha=0.3)
                axis.set_title(f"head_dim {dim}, {mask}", fontsize=9)
        for axis in axes[-1]:
            axis.set_xlabel("seqlen (batch x seqlen = 16384)", fontsize=8)
        for row in axes:
            row[0].set_ylabel(f"times {LABELS[view.peer]}" if ratio else "TFLOP/s", fontsize=8)
        axes[0][0].set_ylim(bottom=0)
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=7, fontsize=8)
        save(figure, folder / f"{name}_ratio.png" if ratio else folder / f"{name}.png")
        plt.close(figure)


def draw_bars(view, name, cells, folder):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 0.55 * len(cells.problems) + 1.4), layout="constrained")
    height = 0.8 / len(cells.impls)
    for place, impl in enumerate(cells.impls):
        rows = [
            (i + place * height, cells.cells[p][impl]["tflops"] * 1e3)
            for i, p in enumerate(cells.problems)
            if impl in cells.cells[p]
        ]
        axis.barh([y for y, _ in rows], [x for _, x in rows], height=height, color=COLOURS[impl], label=LABELS[impl])
    axis.set_yticks(
        [i + 0.4 - height / 2 for i in range(len(cells.problems))],
        [next(iter(cells.cells[p].values()))["problem"] for p in cells.problems],
        fontsize=7,
    )
    axis.invert_yaxis()
    axis.set_xlabel("GFLOP/s")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=7, fontsize=8)
    save(figure, folder / f"{name}.png")
    plt.close(figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a table is stale")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="checkout to read and write")
    options = parser.parse_args(arguments)
    root = options.root
    try:
        all_records = records.read_all(root / "bench/results")
        measures = measure_records.read_all(root / "bench/results/measures")
        chosen = {
            name: newest(view, all_records, problem_text.read_cases(root / "bench/cases" / view.cases))
            for name, view in VIEWS.items()
        }
    except ValueError as error:
        raise SystemExit(str(error)) from None
    tables = {name: table(view, chosen[name]) for name, view in VIEWS.items()} | {"summary": summary(chosen)}
    tables |= measure_tables.tables(measures)

    stale, filled = [], 0
    for path in pages(root):
        text = path.read_text(encoding="utf-8")
        filled += text.count("<!-- bench:begin ")
        new = rewrite(text, tables, path.name)
        if new != text:
            stale.append(path.name)
            if not options.check:
                path.write_text(new, encoding="utf-8")
    if options.check:
        if stale:
            print(f"stale tables in {', '.join(stale)}: run bench/report.py")
            return 1
        print(f"{filled} tables in {len(pages(root))} pages are what {len(all_records) + len(measures)} records say")
        return 0

    for name, view in VIEWS.items():
        cells = chosen[name]
        if cells is None:
            print(f"{name}: no results")
            continue
        for impl in cells.impls:
            if impl != "fattn" and cells.ratios(impl):
                ratios = cells.ratios(impl)
                mean = f"{records.geometric_mean(ratios):.3f} of {LABELS[impl]}"
                print(f"{name}: run {cells.run}, fattn is {mean} (geometric mean of {len(ratios)} cells)")
        try:
            if view.grid or view.cpu:
                (draw_grid if view.grid else draw_bars)(view, name, cells, root / "docs/img")
        except ImportError as error:
            print(f"{name}: no pictures: {error}")
    try:
        measure_tables.draw(measures, root / "docs/img", save)
    except ImportError as error:
        print(f"no pictures of memory and traffic: {error}")
    print("rewrote " + ", ".join(stale) if stale else "no table changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
