#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/check_sass.py must catch what it is for, and only that."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
import check_sass  # noqa: E402

NAME = "_ZN5fattn3gpu4sm907forwardINS1_27sm90_forward_bf16_d128_bandEEEvNT_6ParamsE"
LOG = f"""ptxas info    : (C7519) warpgroup.arrive is injected in around line 4451 by compiler in function '{NAME}'
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{NAME}' for 'sm_90a'
ptxas info    : Function properties for {NAME}
    24 bytes stack frame, 32 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 168 registers, used 16 barriers, 24 bytes cumulative stack size
"""
SERIALISED = (f"ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to "
              f"insufficient register resources for the wgmma pipeline in function '{NAME}'\n")


def sass(*lines):
    text = f"\t\tFunction : {NAME}\n"
    for i, line in enumerate(lines):
        text += f"        /*{16 * i:04x}*/                   {line} ;   /* 0x000000000000 */\n"
    return text


def code(*lines):
    return check_sass.read_sass(sass(*lines))[NAME]


class Log(unittest.TestCase):
    def test_numbers(self):
        kernels, complaints = check_sass.read_log(LOG)
        self.assertEqual(kernels[NAME], {"registers": 168, "barriers": 16, "stack": 24, "stores": 32, "loads": 28})
        self.assertEqual(complaints, [])

    def test_serialised_wgmma_is_an_error(self):
        for number in (7508, 7510, 7514, 7520):
            _, complaints = check_sass.read_log(SERIALISED.replace("C7510", f"C{number}") + LOG)
            self.assertEqual(len(complaints), 1, number)

    def test_name(self):
        self.assertEqual(check_sass.short(NAME), "sm90_forward_bf16_d128_band")


class Sass(unittest.TestCase):
    def test_spill_in_the_loop(self):
        lines = ["HGMMA.64x128x16.F32.BF16 R24, R180, gdesc[UR4], RZ, !UPT", "@!P0 LDL.LU R0, [R1+0x10]", "@P0 BRA 0x0"]
        self.assertEqual(check_sass.local_memory_in_main_loops(code(*lines)), ["LDL.LU at 0x10"])

    def test_spill_outside_the_loop(self):
        lines = ["STL [R1], R2", "HGMMA.64x128x16.F32.BF16 R24, R180, gdesc[UR4], RZ, !UPT", "@P0 BRA 0x10", "LDL R2, [R1]"]
        self.assertEqual(check_sass.local_memory_in_main_loops(code(*lines)), [])

    def test_spill_in_an_outer_loop_only(self):
        lines = ["LDL R2, [R1]", "HGMMA.64x128x16.F32.BF16 R24, R180, gdesc[UR4], RZ, !UPT", "@P0 BRA 0x10", "@P1 BRA 0x0"]
        self.assertEqual(check_sass.local_memory_in_main_loops(code(*lines)), [])

    def test_code_after_a_jump_back_is_no_loop(self):
        # The wait of a barrier spins out of line, behind everything, and jumps back.
        lines = ["@!P0 BRA 0x50", "HGMMA.64x128x16.F32.BF16 R24, R180, gdesc[UR4], RZ, !UPT", "@P1 BRA 0x10", "LDL R2, [R1]",
                 "EXIT", "@!P0 BRA 0x50", "BRA 0x10"]
        self.assertEqual(check_sass.local_memory_in_main_loops(code(*lines)), [])

    def test_spill_out_of_line_but_in_the_loop(self):
        lines = ["HGMMA.64x128x16.F32.BF16 R24, R180, gdesc[UR4], RZ, !UPT", "@P0 BRA 0x40", "@P1 BRA 0x0", "EXIT",
                 "STL [R1], R2", "BRA 0x20"]
        self.assertEqual(check_sass.local_memory_in_main_loops(code(*lines)), ["STL at 0x40"])

    def test_loop_without_products(self):
        lines = ["LDL R2, [R1]", "@P0 BRA 0x0", "HGMMA.64x128x16.F32.BF16 R24, R180, gdesc[UR4], RZ, !UPT"]
        self.assertEqual(check_sass.local_memory_in_main_loops(code(*lines)), [])


class Arrivals(unittest.TestCase):
    """(instruction, scoreboard it sets, mask it waits for)."""

    def places(self, *instructions):
        text = f"\t\tFunction : {NAME}\n"
        for i, (line, board, mask) in enumerate(instructions):
            text += f"        /*{16 * i:04x}*/                   {line} ;   /* 0x000000000000 */\n"
            text += f"                                             /* {(mask << 11 | 7 << 8 | board << 5) << 41:#018x} */\n"
        return check_sass.arrivals_before_loads(text).get(NAME, [])

    LOADS = (("LDSM.16.M88.4 R200, [R23]", 1, 0), ("LDSM.16.M88.4 R224, [R11]", 0, 0))
    ARRIVAL = ("@!P2 SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR20+0x31908], RZ", 7, 0)

    def test_behind_loads(self):
        self.assertEqual(self.places(*self.LOADS, self.ARRIVAL), ["0x0020 behind 0x0010"])

    def test_one_scoreboard_is_not_both(self):
        self.assertEqual(self.places(*self.LOADS, ("WARPGROUP.ARRIVE", 7, 1), self.ARRIVAL), ["0x0030 behind 0x0000"])

    def test_behind_a_wait(self):
        self.assertEqual(self.places(*self.LOADS, ("WARPGROUP.ARRIVE", 7, 3), self.ARRIVAL), [])

    def test_a_wait_on_a_path_not_taken(self):
        over = self.places(*self.LOADS, ("@!P0 BRA 0x40", 7, 0), ("LOP3.LUT R200, R200, R224, RZ, 0x78, !PT", 7, 3),
                           self.ARRIVAL)
        self.assertEqual(over, ["0x0040 behind 0x0010"])

    def test_a_load_of_the_turn_before(self):
        loop = self.places(self.ARRIVAL, *self.LOADS, ("WARPGROUP.ARRIVE", 7, 1), ("@P0 BRA 0x0", 7, 0))
        self.assertEqual(loop, ["0x0000 behind 0x0010"])

    def test_before_loads(self):
        self.assertEqual(self.places(self.ARRIVAL, *self.LOADS), [])


class Whole(unittest.TestCase):
    def run_check(self, log, listing):
        """With a stand-in for cuobjdump that prints `listing`."""
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "row.o").write_text("")
            (folder / "row.o.ptxas.log").write_text(log)
            (folder / "listing").write_text(listing)
            tool = folder / "cuobjdump"
            tool.write_text(f"#!/bin/sh\ncat {folder}/listing\n")
            tool.chmod(0o755)
            lines = []
            return check_sass.check([folder / "row.o"], str(tool), lines.append), lines

    def test_good(self):
        complaints, table = self.run_check(LOG, sass("HGMMA.64x128x16.F32.BF16 R24, R180, gdesc[UR4], RZ, !UPT", "EXIT"))
        self.assertEqual(complaints, [])
        self.assertEqual(table[1].split(), ["sm90_forward_bf16_d128_band", "168", "16", "24", "32", "28", "1", "2"])

    def test_no_products(self):
        complaints, _ = self.run_check(LOG, sass("HMMA.16816.F32.BF16 R0, R4, R8, R0", "EXIT"))
        self.assertEqual(complaints, ["sm90_forward_bf16_d128_band: issues no wgmma"])

    def test_missing_kernel(self):
        complaints, _ = self.run_check(LOG, "")
        self.assertEqual(len(complaints), 1)

    def test_nothing_to_check(self):
        self.assertEqual(len(check_sass.check(["absent.o"], None, lambda line: None)), 1)


if __name__ == "__main__":
    unittest.main()
