# SPDX-License-Identifier: Apache-2.0
"""The C interface as a foreign language sees it, against attention written in plain Python; no packages."""

import ctypes
import math
import os
import pathlib
import random
import re
import unittest

import fattn_c
import problem_text

SOURCE = pathlib.Path(os.environ["FATTN_SOURCE_DIR"])


def floats(values):
    values = list(values)
    return (ctypes.c_float * len(values))(*values)


def address(array):
    return ctypes.addressof(array)


class CInterface(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.library = fattn_c.Library(os.environ["FATTN_LIBRARY"])

    def test_buffers_are_those_of_the_header(self):
        header = (SOURCE / "include/fattn/fattn.h").read_text()
        body = re.search(r"typedef struct fattn_buffers \{(.*?)\} fattn_buffers;", header, re.DOTALL)[1]
        self.assertEqual(re.findall(r"(\w+)[,;]", body), ["struct_size", *fattn_c.BUFFERS])
        for struct, name in ((fattn_c.Device, "device"), (fattn_c.Traffic, "traffic")):
            body = re.search(rf"typedef struct fattn_{name} \{{(.*?)\}} fattn_{name};", header, re.DOTALL)[1]
            body = re.sub(r"/\*.*?\*/|\[\d+\]", "", body)
            self.assertEqual(re.findall(r"(\w+)[,;]", body), [field for field, _ in struct._fields_])

    def test_version(self):
        self.assertRegex(self.library.version, r"^\d+\.\d+\.\d+$")

    def test_devices(self):
        h100 = self.library.device("h100")
        self.assertEqual((h100.kind, h100.index, h100.compute_capability), (1, -1, 90))
        self.assertGreater(h100.peak_16bit_tflops, 900)
        self.assertGreaterEqual(self.library.device("cpu").threads, 1)

    def test_errors(self):
        with self.assertRaisesRegex(fattn_c.Error, "heads_kv = 3"):
            self.library.canonical("fwd hq2 hk3 sq8 d16 fp32")
        with self.assertRaises(fattn_c.Unsupported):
            self.library.plan("fwd sq8 d16 e4m3 descale=tensor", "cpu")
        with self.assertRaises(fattn_c.Error):
            fattn_c.buffers({"queries": 1})

    def test_problem_text_reads_what_the_library_prints(self):
        for path in sorted((SOURCE / "bench/cases").glob("*.txt")):
            for line in problem_text.read_cases(path):
                problem = line.partition("|")[0]
                printed = self.library.canonical(problem)
                again = problem if path.stem.endswith("_check") else line  # check lists draw data that is not timed
                self.assertEqual(problem_text.parse(printed), problem_text.parse(again), line)

    def test_flops_agree(self):
        for line in (
            "fwd b2 hq4 sq50 sk70 d16 dv8 fp32 causal",
            "bwd b1 hq2 sq70 sk50 d16 fp32 causal",
            "fwd b1 hq2 sq64 d16 fp32",
            "bwd b1 hq2 sq64 d16 fp32 window=5,2",
            "fwd b3 hq2 sq40 sk60 d16 fp32 causal_top_left",
        ):
            plan = self.library.plan(line, "cpu", "reference_forward_fp64,reference_backward_fp64")
            self.assertEqual(plan.flops, problem_text.flops(problem_text.parse(line)), line)

    def test_forward(self):
        for seqlen_q, seqlen_k, mask in ((5, 9, ""), (6, 6, "causal"), (7, 4, "causal")):
            self.forward(seqlen_q, seqlen_k, mask)

    def forward(self, seqlen_q, seqlen_k, mask):
        heads, dim, rng = 2, 16, random.Random(1)
        q, k, v = (
            floats(rng.gauss(0, 1) for _ in range(rows * heads * dim)) for rows in (seqlen_q, seqlen_k, seqlen_k)
        )
        o, lse = floats([math.nan] * len(q)), floats([math.nan] * (heads * seqlen_q))
        plan = self.library.plan(f"fwd hq{heads} sq{seqlen_q} sk{seqlen_k} d{dim} fp32 {mask} lse align=4", "cpu")
        workspace = ctypes.create_string_buffer(plan.workspace_bytes + 256)
        aligned = address(workspace) + -address(workspace) % 256
        given = fattn_c.buffers({name: address(array) for name, array in dict(q=q, k=k, v=v, o=o, lse=lse).items()})
        plan.run(given, aligned, plan.workspace_bytes)

        def row(tensor, i, head):
            return tensor[(i * heads + head) * dim : (i * heads + head + 1) * dim]

        for head in range(heads):
            for i in range(seqlen_q):
                seen = range(seqlen_k if not mask else max(0, i + seqlen_k - seqlen_q + 1))
                scores = [sum(a * b for a, b in zip(row(q, i, head), row(k, j, head))) / math.sqrt(dim) for j in seen]
                total = sum(map(math.exp, scores))
                want = [
                    sum(math.exp(s) * row(v, j, head)[x] for s, j in zip(scores, seen)) / (total or 1)
                    for x in range(dim)
                ]
                for got, wanted in zip(row(o, i, head), want):
                    self.assertAlmostEqual(got, wanted, places=5)
                got = lse[head * seqlen_q + i]
                if seen:
                    self.assertAlmostEqual(got, math.log(total), places=5)
                else:
                    self.assertEqual(got, -math.inf)


if __name__ == "__main__":
    unittest.main()
