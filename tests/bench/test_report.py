# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import json
import pathlib
import tempfile
import unittest

import report
from test_records import GOOD

CASES = """fwd b4 hq16 hk16 sq4096 sk4096 d128 bf16 lse
fwd b1 hq16 hk16 sq16384 sk16384 d128 bf16 lse
fwd b1 hq16 hk16 sq16384 sk16384 d128 bf16 causal lse
"""
LINES = CASES.splitlines()
PAGE = "before\n<!-- bench:begin forward -->\nold\n<!-- bench:end forward -->\nafter\n"


def record(run, problem, impl, tflops, **more):
    kernel = more.pop("kernel", "sm90" if impl == "fattn" else None)
    return GOOD | {"run": run, "problem": problem, "impl": impl, "tflops": tflops, "kernel": kernel} | more


class Report(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for part in ("bench/results/measures", "bench/cases", "docs"):
            (self.root / part).mkdir(parents=True)
        for name in ("forward_grid.txt", "cpu.txt"):
            (self.root / "bench/cases" / name).write_text(CASES)
        for name in ("backward_grid.txt", "forward_breadth.txt"):
            (self.root / "bench/cases" / name).write_text("")
        (self.root / "README.md").write_text(PAGE)

    def results(self, *rows):
        (self.root / "bench/results/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run_report(self, *arguments):
        self.output = io.StringIO()
        with contextlib.redirect_stdout(self.output):
            return report.main(["--root", str(self.root), *arguments])

    def readme(self):
        return (self.root / "README.md").read_text()

    def test_rewrites_then_check_passes_then_notices_a_change(self):
        self.results(
            record("20260101T000000Z", LINES[0], "fattn", 600.0), record("20260101T000000Z", LINES[0], "cudnn", 500.0)
        )
        self.assertEqual(self.run_report("--check"), 1)
        self.assertIn("old", self.readme())
        self.assertEqual(self.run_report(), 0)
        self.assertIn("| 128 | full | 4096 | 600 | 500 | 1.20 |", self.readme())
        self.assertIn("1.20 of cuDNN (1 cells)", self.readme())
        self.assertTrue(self.readme().startswith("before\n") and self.readme().endswith("after\n"))
        self.assertEqual(self.run_report("--check"), 0)
        (self.root / "README.md").write_text(self.readme().replace("600", "900"))
        self.assertEqual(self.run_report("--check"), 1)
        self.assertIn("README.md", self.output.getvalue())

    def test_no_results(self):
        self.assertEqual(self.run_report(), 0)
        self.assertIn("No results recorded yet.", self.readme())

    def test_newest_run_that_fits(self):
        old, new, single = "20260101T000000Z", "20260102T000000Z", "20260103T000000Z"
        rows = [
            record(run, line, impl, speed)
            for run, speed in ((old, 100.0), (new, 200.0))
            for line in LINES
            for impl in ("fattn", "cudnn")
        ]
        rows += [record(single, LINES[0], impl, 999.0) for impl in ("fattn", "cudnn")]  # one cell of three
        rows += [record("20260104T000000Z", line, "fattn", 888.0) for line in LINES]  # no peer
        self.results(*rows)
        self.run_report()
        self.assertIn("200", self.readme())
        for absent in ("999", "888", "| 100"):
            self.assertNotIn(absent, self.readme())

    def test_words_in_another_order_are_the_same_problem(self):
        line = "fwd b4 hq16 sq4096 d128 lse bf16"
        self.results(record("20260101T000000Z", line, "fattn", 600.0), record("20260101T000000Z", line, "cudnn", 500.0))
        self.run_report()
        self.assertIn("| 128 | full | 4096 | 600 | 500 | 1.20 |", self.readme())

    def test_cpu_runs_stay_out_of_gpu_tables(self):
        (self.root / "README.md").write_text(PAGE + PAGE.replace("forward", "cpu_forward"))
        self.results(
            record("20260101T000000Z", LINES[0], "fattn", 0.2, kernel="cpu_amx_forward", sm_clock_mhz=None),
            record("20260101T000000Z", LINES[0], "torch_cpu", 0.1, sm_clock_mhz=None),
        )
        self.run_report()
        gpu, cpu = self.readme().split("bench:end forward")
        self.assertIn("No results recorded yet.", gpu)
        self.assertIn(f"| `{LINES[0]}` | 200 | 100 | 2.00 |", cpu)

    def test_cpus_of_unlike_instructions_have_tables_of_their_own(self):
        (self.root / "README.md").write_text("".join(PAGE.replace("forward", n + "_forward") for n in ("cpu", "avx512")))
        for run, row, speed in (("20260101", "cpu_amx_forward", 0.2), ("20260102", "cpu_avx512_bf16_forward", 0.4)):
            run += "T000000Z"
            with open(self.root / "bench/results/a.jsonl", "a", encoding="utf-8") as file:
                for each in (
                    record(run, LINES[0], "fattn", speed, kernel=row, sm_clock_mhz=None),
                    record(run, LINES[0], "torch_cpu", 0.1, sm_clock_mhz=None),
                ):
                    file.write(json.dumps(each) + "\n")
        self.run_report()
        amx, avx512 = self.readme().split("bench:end cpu_forward")
        self.assertIn(f"| `{LINES[0]}` | 200 | 100 | 2.00 |", amx)
        self.assertIn(f"| `{LINES[0]}` | 400 | 100 | 4.00 |", avx512)

    def test_two_devices_that_begin_in_the_same_second(self):
        (self.root / "README.md").write_text(PAGE + PAGE.replace("forward", "cpu_forward"))
        run, cpu = "20260101T000000Z", {"device": "some CPU", "sm_clock_mhz": None}
        self.results(
            record(run, LINES[0], "fattn", 600),
            record(run, LINES[0], "cudnn", 500),
            record(run, LINES[0], "fattn", 0.2, kernel="cpu_amx_forward", **cpu),
            record(run, LINES[0], "torch_cpu", 0.1, **cpu),
        )
        self.run_report()
        self.assertIn("| 128 | full | 4096 | 600 | 500 | 1.20 |", self.readme())
        self.assertIn(f"| `{LINES[0]}` | 200 | 100 | 2.00 |", self.readme())

    def test_geometric_mean_leaves_out_cells_without_peer(self):
        run = "20260101T000000Z"
        self.results(
            record(run, LINES[0], "fattn", 100.0),
            record(run, LINES[0], "cudnn", 100.0),
            record(run, LINES[1], "fattn", 400.0),
            record(run, LINES[1], "cudnn", 100.0),
            record(run, LINES[2], "fattn", 123.0),
        )
        self.run_report()
        self.assertIn("2.00 of cuDNN (2 cells)", self.readme())
        self.assertIn("| 128 | causal | 16384 | 123 | - | - |", self.readme())

    def test_summary_has_a_row_for_each_view_with_results(self):
        (self.root / "README.md").write_text(PAGE.replace("forward", "summary"))
        self.assertEqual(self.run_report(), 0)
        self.assertIn("No results recorded yet.", self.readme())
        run, cpu = "20260101T000000Z", {"device": "some CPU", "sm_clock_mhz": None}
        self.results(
            record(run, LINES[0], "fattn", 600, device="some GPU"),
            record(run, LINES[0], "cudnn", 300, device="some GPU"),
            record(run, LINES[1], "fattn", 400, device="some GPU"),
            record(run, LINES[1], "cudnn", 400, device="some GPU"),
            record(run, LINES[0], "fattn", 0.2, kernel="cpu_amx_forward", **cpu),
            record(run, LINES[0], "torch_cpu", 0.1, **cpu),
        )
        self.run_report()
        self.assertIn("| forward, bf16 | some GPU | 400 to 600 TFLOP/s | 1.41 of cuDNN, 2 shapes |", self.readme())
        self.assertIn("| forward, bf16 | some CPU | 200 to 200 GFLOP/s | 2.00 of PyTorch CPU, 1 shapes |", self.readme())
        self.assertNotIn("backward", self.readme())
        self.assertEqual(self.run_report("--check"), 0)

    def test_bad_markers(self):
        for page in (PAGE.replace("forward", "sideways"), PAGE.replace("<!-- bench:end forward -->", "")):
            (self.root / "README.md").write_text(page)
            with self.assertRaises(SystemExit, msg=page):
                self.run_report("--check")

    def measured(self, *rows):
        same = {"run": "20260101T000000Z", "date": "2026-01-01", "commit": "c" * 12, "device": "GPU", "impl_version": "1"}
        lines = [json.dumps(same | dict(zip(("impl", "problem", "measure", "value"), row))) for row in rows]
        (self.root / "bench/results/measures/a.jsonl").write_text("\n".join(lines))

    def test_what_is_counted_has_tables(self):
        names = ("memory", "traffic", "errors", "host")
        text = "".join(f"<!-- bench:begin {name} -->\n<!-- bench:end {name} -->\n" for name in names)
        (self.root / "README.md").write_text(text)
        line = "fwd b1 hq2 hk2 sq1024 sk1024 d64 bf16 lse"
        self.measured(
            ("fattn", line, "allocated_bytes", 2.0**20),
            ("fattn", line, "workspace_bytes", 0.0),
            ("standard", line, "allocated_bytes", 2.0**30),
            ("fattn", line, "rmse_o_normal", 0.5),
            ("cudnn", line, "rmse_o_normal", 0.25),
            *(("fattn", line, f"host_{name}_us", us) for name, us in (("run", 5.0), ("launch", 3.5), ("plan", 9.0))),
        )
        self.assertEqual(self.run_report("--check"), 1)
        self.run_report()
        self.assertIn("| 1k | 1 MiB | 0 MiB | 1 GiB | 1.02e+03 |", self.readme())
        self.assertIn("| normal | bf16 | 64 | full | 0.5 (2.000) | - | - | - |", self.readme())
        self.assertIn(f"| `{line}` | 5.00 us | 3.50 us | 1.50 us | 9.0 us |", self.readme())
        self.assertEqual(self.readme().count("No results recorded yet."), 1)
        self.measured(("fattn", line, "allocated_bytes", -1.0))
        with self.assertRaisesRegex(SystemExit, "a.jsonl:1.*counted"):
            self.run_report("--check")

    def test_bad_record(self):
        self.results({"run": "x"})
        with self.assertRaisesRegex(SystemExit, "a.jsonl:1"):
            self.run_report("--check")


if __name__ == "__main__":
    unittest.main()
