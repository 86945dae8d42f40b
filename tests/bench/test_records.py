# SPDX-License-Identifier: Apache-2.0
import json
import os
import pathlib
import tempfile
import unittest

import records

GOOD = {
    "run": "20260131T235959Z",
    "date": "2026-01-31",
    "commit": "abc",
    "device": "NVIDIA H200",
    "impl": "fattn",
    "impl_version": "0.1.0",
    "problem": "fwd sq8 d64 bf16",
    "kernel": "row",
    "direction": "forward",
    "median_us": 2.0,
    "min_us": 1.5,
    "tflops": 3,
    "fraction_of_peak": 0.5,
    "sm_clock_mhz": 1980,
    "bytes": 4096,
}


class Check(unittest.TestCase):
    def test_good(self):
        records.check(GOOD)
        for name in ("kernel", "fraction_of_peak", "sm_clock_mhz", "bytes"):
            records.check(GOOD | {name: None})

    def test_bad_values(self):
        bad = {
            "run": "2026-01-31",
            "date": "31.1.2026",
            "impl": "mine",
            "direction": "fwd",
            "median_us": 1.0,
            "min_us": 0,
            "tflops": -1,
            "fraction_of_peak": float("nan"),
            "bytes": "many",
            "commit": None,
            "sm_clock_mhz": True,
        }
        for name, value in bad.items():
            with self.assertRaises(records.RecordError, msg=name):
                records.check(GOOD | {name: value})

    def test_exactly_the_fields(self):
        for name in records.FIELDS:
            with self.assertRaises(records.RecordError, msg=name):
                records.check({key: value for key, value in GOOD.items() if key != name})
        with self.assertRaises(records.RecordError):
            records.check(GOOD | {"note": "x"})

    def test_read_names_the_line(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "a.jsonl"
            path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD)[:-1] + "\n")
            with self.assertRaisesRegex(records.RecordError, "a.jsonl:3"):
                records.read(path)

    def test_write_then_read(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "a.jsonl"
            with open(path, "w", encoding="utf-8") as file:
                records.write(file, GOOD)
                with self.assertRaises(records.RecordError):
                    records.write(file, GOOD | {"tflops": 0})
            self.assertEqual(records.read(path), [GOOD])


class Committed(unittest.TestCase):
    def test_every_record_in_the_repository(self):
        records.read_all(pathlib.Path(os.environ["FATTN_SOURCE_DIR"]) / "bench/results")


class Mean(unittest.TestCase):
    def test_geometric(self):
        self.assertAlmostEqual(records.geometric_mean([1, 4]), 2)
        self.assertAlmostEqual(records.geometric_mean([0.5, 2, 1]), 1)
        with self.assertRaises(ValueError):
            records.geometric_mean([])


if __name__ == "__main__":
    unittest.main()
