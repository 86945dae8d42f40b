# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import unittest

import problem_text
from problem_text import parse

CASES = pathlib.Path(os.environ["FATTN_SOURCE_DIR"]) / "bench/cases"


def brute_pairs(seqlen_q, seqlen_k, keep):
    return sum(keep(q, k, q + seqlen_k - seqlen_q) for q in range(seqlen_q) for k in range(seqlen_k))


class Parse(unittest.TestCase):
    def test_every_field(self):
        p = parse("bwd b2 hq8 hk2 sq100 sk200 d128 dv64 tq150 tk300 fp16 causal window=7,-1 lse")
        self.assertEqual(
            (p.direction, p.batch, p.heads_q, p.heads_kv, p.seqlen_q, p.seqlen_k), ("bwd", 2, 8, 2, 100, 200)
        )
        self.assertEqual((p.head_dim, p.head_dim_v, p.total_q, p.total_k, p.dtype), (128, 64, 150, 300, "fp16"))
        self.assertEqual((p.causal, p.window, p.lse, p.others), (True, (7, -1), True, frozenset()))

    def test_defaults_are_those_of_the_library(self):
        p = parse("fwd hq6 sq10 d32 fp32")
        self.assertEqual((p.batch, p.heads_kv, p.seqlen_k, p.head_dim_v), (1, 6, 10, 32))

    def test_order_of_words_does_not_matter(self):
        self.assertEqual(parse("fwd b1 hq2 sq8 d64 causal bf16 lse"), parse("fwd lse bf16 d64 sq8 causal hq2 b1"))

    def test_unknown_words_are_kept_and_refused(self):
        p = parse("fwd sq8 d64 bf16 softcap=3")
        self.assertEqual(p.others, {"softcap=3"})
        with self.assertRaises(problem_text.ProblemError):
            problem_text.flops(p)

    def test_bad_lines(self):
        for line in ("", "forward sq8 d64 bf16", "fwd d64 bf16", "fwd sq8 bf16", "fwd sq8 d64"):
            with self.assertRaises(problem_text.ProblemError, msg=line):
                parse(line)


class Counts(unittest.TestCase):
    def test_pairs_by_counting(self):
        masks = {
            "": lambda q, k, d: True,
            "causal": lambda q, k, d: k <= d,
            "causal_top_left": lambda q, k, d: k <= q,
            "window=3,1": lambda q, k, d: d - 3 <= k <= d + 1,
            "window=-1,2": lambda q, k, d: k <= d + 2,
            "causal window=2,-1": lambda q, k, d: d - 2 <= k <= d,
            "causal_top_left window=4,0": lambda q, k, d: d - 4 <= k <= d and k <= q,
        }
        for words, keep in masks.items():
            for seqlen_q, seqlen_k in ((7, 7), (5, 11), (11, 5), (1, 9), (6, 0)):
                p = parse(f"fwd b3 hq2 sq{seqlen_q} sk{seqlen_k} d8 fp32 {words}")
                self.assertEqual(problem_text.visible_pairs(p), 6 * brute_pairs(seqlen_q, seqlen_k, keep), str(p))

    def test_packed_pairs_use_the_lengths(self):
        p = parse("fwd b3 hq2 sq10 sk10 d8 tq17 tk17 fp32 causal")
        want = sum(n * (n + 1) // 2 for n, _ in problem_text.sequences(p))
        self.assertEqual(problem_text.visible_pairs(p), 2 * want)

    def test_flops(self):
        self.assertEqual(problem_text.flops(parse("fwd b2 hq3 sq10 d64 dv32 bf16")), 2 * 2 * 3 * 100 * (64 + 32))
        self.assertEqual(
            problem_text.flops(parse("bwd b2 hq3 sq10 d64 dv32 bf16")), 2 * 2 * 3 * 100 * (3 * 64 + 2 * 32)
        )

    def test_bytes(self):
        self.assertEqual(
            problem_text.tensor_bytes(parse("fwd b1 hq4 hk2 sq10 sk20 d8 bf16 lse")),
            2 * (10 * 4 * 8 * 2 + 20 * 2 * 8 * 2) + 4 * 10 * 4,
        )

    def test_lengths(self):
        for batch, total, longest in (
            (1, 64, 64),
            (15, 16384, 4096),
            (4, 400, 100),
            (5, 100, 100),
            (9, 700, 300),
            (4, 1, 1),
        ):
            p = parse(f"fwd b{batch} sq{longest} tq{total} d8 fp32")
            lengths = problem_text.lengths(p, total, longest)
            self.assertEqual((len(lengths), sum(lengths), max(lengths)), (batch, total, longest))
            self.assertGreaterEqual(min(lengths), 0)
        given = parse("fwd b3 sq9 tq12 tk9 sk9 d8 fp32 | lengths_q=0,9,3 lengths_k=9,0,0")
        self.assertEqual(problem_text.sequences(given), [(0, 9), (9, 0), (3, 0)])
        for bad in ("lengths_q=9,9,3", "lengths_q=10,1,1", "lengths_q=9,3"):
            with self.assertRaises(problem_text.ProblemError, msg=bad):
                problem_text.sequences(parse(f"fwd b3 sq9 tq12 d8 fp32 | {bad}"))
        with self.assertRaises(problem_text.ProblemError):
            parse("fwd sq9 d8 fp32 | seed=3")
        with self.assertRaises(problem_text.ProblemError):
            problem_text.lengths(parse("fwd b2 sq8 tq17 d8 fp32"), 17, 8)


class CaseFiles(unittest.TestCase):
    def test_all_parse(self):
        files = sorted(CASES.glob("*.txt"))
        self.assertGreaterEqual(len(files), 4)
        for path in files:
            lines = problem_text.read_cases(path)
            self.assertTrue(lines, path)
            self.assertEqual(len(lines), len(set(lines)), f"{path} says something twice")
            # Lists for `fattn check` may say how their data is drawn; what is timed may not.
            check = path.stem.endswith("_check")
            problems = [parse(line.partition("|")[0] if check else line) for line in lines]
            self.assertTrue(check or len(problems) == len(set(problems)), f"{path} says something twice")

    def test_grids(self):
        for name, direction in (("forward_grid.txt", "fwd"), ("backward_grid.txt", "bwd")):
            problems = [parse(line) for line in problem_text.read_cases(CASES / name)]
            self.assertEqual(len(problems), 36)
            for p in problems:
                self.assertEqual(
                    (p.direction, p.batch * p.seqlen_q, p.heads_q * p.head_dim, p.dtype),
                    (direction, 16384, 2048, "bf16"),
                )
                self.assertEqual(p.lse, direction == "fwd")

    def test_packed_case_spans_the_promised_lengths(self):
        packed = [parse(line) for line in problem_text.read_cases(CASES / "cpu.txt") if "tq" in line]
        self.assertEqual(len(packed), 2)
        for p in packed:
            lengths = [q for q, _ in problem_text.sequences(p)]
            self.assertEqual(max(lengths), 4096)
            self.assertTrue(64 <= min(lengths) <= 128, lengths)


if __name__ == "__main__":
    unittest.main()
