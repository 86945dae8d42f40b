# SPDX-License-Identifier: Apache-2.0
import importlib.util
import json
import pathlib
import tempfile
import unittest

import demo_plots

ROWS = [
    {"seqlen": s, "impl": impl, "time_ms": t, "bytes": s * 100}
    for s, impl, t in ((512, "fattn", 2.0), (256, "fattn", 1.0), (256, "standard", 3), (512, "standard", None))
]


class DemoPlots(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "scaling.jsonl"
        self.path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def test_read_sorts_by_length(self):
        series = demo_plots.read(self.path)
        self.assertEqual(series[("forward", "fattn")], [(256, 1.0, 25600), (512, 2.0, 51200)])
        self.assertEqual(series[("forward", "standard")][1], (512, None, 51200))

    def test_bad_lines_are_named(self):
        for line in (
            "{",
            "[1]",
            '{"seqlen": 1, "impl": "fattn", "time_ms": 1}',
            '{"seqlen": "x", "impl": "a", "time_ms": 1, "bytes": 1}',
        ):
            self.path.write_text(json.dumps(ROWS[0]) + "\n" + line + "\n")
            with self.assertRaisesRegex(SystemExit, "scaling.jsonl:2", msg=line):
                demo_plots.read(self.path)
        self.path.write_text("")
        with self.assertRaisesRegex(SystemExit, "no measurements"):
            demo_plots.read(self.path)

    @unittest.skipUnless(importlib.util.find_spec("matplotlib"), "matplotlib is not installed")
    def test_draws_a_png(self):
        picture = self.path.with_suffix(".png")
        demo_plots.main([str(self.path), str(picture)])
        self.assertEqual(picture.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")


if __name__ == "__main__":
    unittest.main()
