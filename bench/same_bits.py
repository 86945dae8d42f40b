#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs problems many times, half of them beside other work on the GPU, and compares the bits of what they write.

    bench/same_bits.py --library build/cuda/libfattn.so --runs 1000 "bwd b2 hq8 hk4 sq2048 sk2048 d128 bf16 deterministic"

Prints one JSON object a problem; exit code 1 when bits differ. Outputs are poisoned before each run."""

import argparse
import json
import math
import pathlib
import sys

import torch

import agreement
import fattn_c
import problem_text
from calls import FattnCall


def lines_of(arguments):
    for argument in arguments:
        lines = pathlib.Path(argument).read_text().splitlines() if pathlib.Path(argument).is_file() else [argument]
        yield from (line.split("#")[0].strip() for line in lines if line.split("#")[0].strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--library", required=True)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--commit")
    options = parser.parse_args()
    library = fattn_c.Library(options.library)
    beside, matrix = torch.cuda.Stream(), torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    same = True
    for text in lines_of(options.cases):
        data = agreement.make_data(problem_text.parse(text), "cuda")
        call = FattnCall(data, text, library, "cuda")
        call.run()
        first = {name: value.clone() for name, value in call.outputs().items()}
        finite = all(bool(torch.isfinite(value).all()) for value in first.values())
        differ = torch.zeros((), dtype=torch.int64, device="cuda")
        for run in range(options.runs):
            if 2 * run >= options.runs:
                with torch.cuda.stream(beside):
                    torch.mm(matrix, matrix)
            for value in call.outputs().values():
                value.fill_(math.nan)
            call.run()
            for name, value in call.outputs().items():
                differ += (value.view(torch.int16) != first[name].view(torch.int16)).any()
        record = {
            "problem": text,
            "kernel": call.kernel,
            "device": torch.cuda.get_device_name(),
            "commit": options.commit,
            "runs": options.runs,
            "beside_other_work": options.runs - (options.runs + 1) // 2,
            "outputs_that_differ": int(differ),
            "finite": finite,
        }
        print(json.dumps(record), flush=True)
        same &= finite and int(differ) == 0
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
