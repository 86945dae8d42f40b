# SPDX-License-Identifier: Apache-2.0
"""Needs PyTorch; skipped, and counted as skipped, without it."""

import importlib.util
import math
import os
import pathlib
import tempfile
import unittest
from unittest import mock

if importlib.util.find_spec("torch"):
    import torch

    import agreement
    import bursts
    import peers
    import problem_text
    import records
else:
    torch = None

PROBLEMS = [
    "bwd b2 hq2 hk2 sq40 sk40 d16 fp32 causal",
    "bwd b2 hq4 hk2 sq33 sk50 d16 dv8 fp32 causal",
    "bwd b2 hq4 hk1 sq50 sk33 d16 fp32 causal",
    "bwd b1 hq2 hk2 sq40 sk60 d8 fp32 window=5,3",
    "bwd b3 hq2 hk1 sq30 sk30 d16 tq60 tk60 fp32 causal",
    "bwd b1 hq2 hk2 sq20 sk40 d8 fp32 causal_top_left",
]


@unittest.skipIf(torch is None, "PyTorch is not installed")
class Answer(unittest.TestCase):
    def test_is_what_autograd_says(self):
        for line in PROBLEMS:
            problem = problem_text.parse(line)
            data = agreement.make_data(problem, "cpu")
            got = agreement.answer(data, chunk_elements=1 << 11)  # small: several chunks of heads
            leaves = [x.double().requires_grad_() for x in (data.q, data.k, data.v)]
            group, total = problem.heads_q // problem.heads_kv, 0.0
            for rows_q, rows_k in data.sequences():
                q, k, v = rows_q(leaves[0]), rows_k(leaves[1]), rows_k(leaves[2])
                for head in range(problem.heads_q):
                    s = q[:, head] @ k[:, head // group].T / math.sqrt(problem.head_dim)
                    mask = agreement.dropped(problem, q.shape[0], k.shape[0], "cpu")
                    seen = torch.ones(q.shape[0], dtype=torch.bool)
                    if mask is not None:
                        seen = ~mask.all(-1)
                        s = s.masked_fill(mask, -1e9)
                    o = torch.softmax(s, -1) @ v[:, head // group] * seen[:, None]
                    torch.testing.assert_close(rows_q(got["o"])[:, head], o, msg=line)
                    total = total + (o * rows_q(data.dout)[:, head]).sum()
            for name, want in zip(("dq", "dk", "dv"), torch.autograd.grad(total, leaves)):
                torch.testing.assert_close(got[name], want, msg=f"{name} of {line}")

    def test_rows_without_keys(self):
        data = agreement.make_data(problem_text.parse("bwd b1 hq1 hk1 sq9 sk4 d8 fp32 causal"), "cpu")
        got = agreement.answer(data)
        self.assertTrue((got["lse"][0, 0, :5] == -math.inf).all() and got["lse"][0, 0, 5:].isfinite().all())
        self.assertTrue((got["o"][0, :5] == 0).all() and (got["dq"][0, :5] == 0).all())
        self.assertTrue(all(got[name].isfinite().all() for name in ("o", "dq", "dk", "dv")))


@unittest.skipIf(torch is None, "PyTorch is not installed")
class Complaint(unittest.TestCase):
    def setUp(self):
        self.data = agreement.make_data(problem_text.parse("fwd b2 hq4 hk4 sq512 sk512 d64 bf16"), "cpu")
        self.want = agreement.answer(self.data)
        self.rounded = self.want["o"].bfloat16()

    def complaint(self, **outputs):
        return agreement.complaint(outputs, self.want, "bf16")

    def test_rounding_passes(self):
        self.assertEqual(self.complaint(o=self.rounded, lse=self.want["lse"].clone()), "")

    def test_faults_do_not(self):
        def one_tile(o):
            o[1, 128:256, 3] = o[1, 128:256, 2]

        def one_row(o):
            o[0, 511, 0] = 0

        def a_nan(o):
            o[1, 0, 0, 0] = math.nan

        def scaled(o):
            o *= 1.05

        for fault in (one_tile, one_row, a_nan, scaled):
            broken = self.rounded.clone()
            fault(broken)
            self.assertIn("o is off", self.complaint(o=broken), fault.__name__)
        self.assertIn("shape", self.complaint(o=self.rounded[:, 1:]))
        self.assertIn("lse is off", self.complaint(lse=self.want["lse"] + 0.1))
        self.assertIn(
            "lse is infinite", self.complaint(lse=torch.where(self.want["lse"] > 6, math.inf, self.want["lse"]))
        )


@unittest.skipIf(torch is None, "PyTorch is not installed")
class Timing(unittest.TestCase):
    def test_every_round_takes_each_once(self):
        taken = []

        class Burst:
            def __init__(self, name):
                self.name = name

            def sample(self):
                taken.append(self.name)
                return bursts.Sample(1.0)

        samples = bursts.in_turn({name: Burst(name) for name in "abc"}, 20)
        self.assertTrue(all(len(each) == 20 for each in samples.values()))
        rounds = ["".join(taken[i : i + 3]) for i in range(0, 60, 3)]
        self.assertTrue(all(sorted(each) == list("abc") for each in rounds))
        self.assertGreater(len(set(rounds)), 1)

    def test_summary_leaves_out_unsteady_samples(self):
        good = [bursts.Sample(us, peak_tflops=2.0) for us in (10.0, 12.0, 11.0)]
        bad = [bursts.Sample(100.0, peak_tflops=1.0, steady=False)]
        self.assertEqual(bursts.summary(good + bad), (11.0, 10.0, None, 2.0 * 11.0 * 1e6))
        self.assertEqual(bursts.summary(good[:2] + bad * 3)[0], 100.0)


@unittest.skipIf(torch is None, "PyTorch is not installed")
class EndToEnd(unittest.TestCase):
    def run_peers(self, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            code = peers.main([*arguments, "--device", "cpu", "--samples", "3", "--commit", "abc", "--out", folder])
            (path,) = pathlib.Path(folder).iterdir()
            return code, records.read(path)

    def test_peers_alone(self):
        code, rows = self.run_peers(
            "fwd b1 hq2 hk1 sq128 sk128 d32 bf16 causal lse", "bwd b1 hq2 hk2 sq64 sk64 d32 fp32"
        )
        self.assertEqual(code, 0)
        self.assertEqual(
            [(row["impl"], row["direction"]) for row in rows],
            [(impl, way) for way in ("forward", "backward") for impl in ("torch_cpu", "standard")],
        )
        self.assertEqual(len({row["run"] for row in rows}), 1)
        self.assertTrue(all(row["fraction_of_peak"] > 0 for row in rows))

    def test_a_wrong_peer_is_named_and_not_timed(self):
        def wrong(data):
            return peers.TorchCall(data, lambda q, k, v: q * 0.5, "broken")

        with mock.patch.object(
            peers, "peers_of", lambda device: {"torch_cpu": (wrong, "0"), "standard": (peers.standard, "0")}
        ):
            code, rows = self.run_peers("fwd b1 hq2 hk2 sq64 sk64 d32 bf16")
        self.assertEqual(code, 1)
        self.assertEqual([row["impl"] for row in rows], ["standard"])

    def test_beside_fattn(self):
        code, rows = self.run_peers(
            "--library",
            os.environ["FATTN_LIBRARY"],
            "fwd b1 hq4 hk2 sq100 sk100 d64 bf16 causal lse",
            "bwd b1 hq4 hk2 sq100 sk100 d64 bf16 causal",
            "bwd b3 hq2 hk2 sq80 sk80 d64 tq150 tk150 fp32 causal",
        )
        self.assertEqual(code, 0)
        ours = [row for row in rows if row["impl"] == "fattn"]
        self.assertEqual([row["direction"] for row in ours], ["forward", "backward", "backward"])
        for row in ours:
            self.assertTrue(row["kernel"].startswith("cpu_"), row)
            self.assertGreater(row["bytes"], 0)


if __name__ == "__main__":
    unittest.main()
