#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""FlashAttention's own tests through fattn.flash_attn_2 and fattn.flash_attn_3: a sample of each test's grid.

    pip download --no-deps --no-binary :all: flash-attn && tar xf flash_attn-*.tar.gz && pip install pytest einops
    bench/peer_suites.py flash_attn-*/ [--generation 2|3] [--device cpu|cuda] [--cases N] [--seed S] [--largest ROWS]
                         [--tests output,varlen] [--only dropout_p=0.0,alibi=False] [--forward] [--seconds T] [--out FILE]

Their files are read where they lie and changed in few ways, each printed: "cuda" becomes the device, values of 512
columns, which no kernel here has, are left out of the lists inside the tests of generation 3, and on the CPU its test of
races asks for 1 MiB of other memory instead of 70 GiB. --forward leaves out the gradients where the tests can (those that
always take them do so still). Each test gets N combinations of its parameters, drawn with the seed from those whose
sequences have at most ROWS rows and whose parameters are as --only says: with all of them said, that case alone.

Prints passed, failed, refused (NotImplementedError: with its reasons) and skipped (by the tests themselves) for each
test, and how to repeat the first failure alone; --out also writes one JSON line for each case. After an error that ends
the process's use of a GPU the cases that are left count as not run. Exit 1 if anything failed."""

import argparse
import collections
import importlib.util
import json
import os
import pathlib
import random
import re
import sys
import tempfile
import time
import traceback
import types

import pytest
import torch

import fattn
import fattn.flash_attn_2
import fattn.flash_attn_3

EDITS = [('"cuda"', None), ("([256, 512, d] if d <= 64 else [d])", "([256, d] if d <= 64 else [d])")]
# What the test of races fills a GPU's memory with, which a host may not have.
ROOM = ("torch.empty(70 * 1024 ** 3,", "torch.empty(1024 ** 2,")
FORWARD = ("(d <= MAX_HEADDIM_SM8x or dropout_p == 0) or (is_sm80 or is_sm90)", "False")
# After these nothing more runs in the process.
LOST = re.compile("illegal memory access|misaligned address|unspecified launch failure|device-side assert|INTERNAL_ERROR|"
                  "EXECUTION_FAILED")
TEXTS = {2: "tests/test_flash_attn.py", 3: "hopper/test_flash_attn.py"}


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in(source, generation):
    """The names under which the tests import what they test, and their own helpers."""
    package = types.ModuleType("flash_attn")
    package.__path__ = []
    package.__dict__.update({name: getattr(fattn.flash_attn_2, name) for name in fattn.flash_attn_2.__all__})
    sys.modules["flash_attn"] = package
    # Their rotary embedding in PyTorch, which computes what their Triton kernel does.
    for name in ("flash_attn.ops", "flash_attn.ops.triton", "flash_attn.ops.triton.rotary", "flash_attn.layers"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["flash_attn.ops.triton.rotary"].apply_rotary = None
    plain = load("flash_attn.layers.rotary", source / "flash_attn" / "layers" / "rotary.py")

    def apply_rotary_emb(x, cos, sin, interleaved=False, seqlen_offsets=0):
        at = torch.as_tensor(seqlen_offsets, device=x.device).long().reshape(-1, 1) + torch.arange(x.shape[1], device=x.device)
        at = at.expand(x.shape[0], -1)
        return plain.apply_rotary_emb_torch(x.float(), cos[at].float(), sin[at].float(), interleaved).to(x.dtype)

    plain.apply_rotary_emb = apply_rotary_emb
    if generation == 3:
        sys.modules["flash_attn_interface"] = fattn.flash_attn_3
        load("padding", source / "hopper" / "padding.py")
        load("test_util", source / "hopper" / "test_util.py")
        return
    load("flash_attn.bert_padding", source / "flash_attn" / "bert_padding.py")
    interface = sys.modules["flash_attn.flash_attn_interface"] = types.ModuleType("flash_attn.flash_attn_interface")
    # How many keys share the scale of S_dmask: here all of a row.
    interface._get_block_size_n = lambda *args: 1 << 30


def pretend_gpu():
    """What the files ask of a GPU while they are imported and run, where there is none."""
    torch.cuda.get_device_capability = lambda *args: (9, 0)
    torch.cuda.get_device_properties = lambda *args: types.SimpleNamespace(total_memory=1 << 40)
    torch.cuda.synchronize = lambda *args: None


class Sample:
    """Instead of whole grids, some of their points; and what became of them."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.only = [each.split("=") for each in arguments.only.split(",") if each]
        self.grids = {}
        self.cases = []
        self.begin = time.monotonic()
        self.lost = False

    def decorate(self, names, values, **kwargs):
        def decorator(function):
            self.grids.setdefault(function.__name__, []).append(
                ([name.strip() for name in names.split(",")], list(values)))
            return function

        return decorator

    def grid(self, name):
        """The values of each parameter of a test, or of parameters that go together, that --only leaves."""
        def wanted(names, values):
            said = dict(zip(names, values))
            return all(str(said.get(key, value)).removeprefix("torch.") == value for key, value in self.only)

        grid = []
        for names, values in self.grids[name]:
            tuples = [value if len(names) > 1 else (value,) for value in values]
            grid.append([dict(zip(names, each)) for each in tuples if wanted(names, each)])
        return grid

    def points(self, name):
        draw = random.Random(f"{self.arguments.seed} {name}")
        grid = self.grid(name)
        seen = []
        for _ in range(self.arguments.cases * 200 if all(grid) else 0):
            point = {key: value for values in grid for key, value in draw.choice(values).items()}
            rows = [size for key, size in point.items() if "seqlen" in key and isinstance(size, int)]
            if max(rows, default=0) <= self.arguments.largest and point not in seen:
                seen.append(point)
            if len(seen) == self.arguments.cases:
                break
        return seen

    def pytest_generate_tests(self, metafunc):
        name = metafunc.function.__name__
        if name in self.grids:
            points = self.points(name)
            keys = list(points[0]) if points else []
            metafunc.parametrize(keys, [tuple(point[key] for key in keys) for point in points],
                                 ids=[" ".join(f"{k}={v}" for k, v in point.items()).replace("torch.", "") for point in points])

    def pytest_collection_modifyitems(self, items):
        words = self.arguments.tests.split(",") if self.arguments.tests else []
        items[:] = [item for item in items if not words or any(word in item.originalname for word in words)]

    def pytest_runtest_setup(self):
        if self.lost:
            pytest.skip("not run: the GPU was lost before")
        if time.monotonic() - self.begin > self.arguments.seconds:
            pytest.skip("out of time")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = (yield).get_result()
        if report.when == "call" or report.skipped or report.failed:
            outcome, why = report.outcome, ""
            if call.excinfo is not None:
                why = str(call.excinfo.value).strip().splitlines()[0] if str(call.excinfo.value) else ""
                if call.excinfo.errisinstance(NotImplementedError):
                    outcome = "refused"
                    why = refusal(str(call.excinfo.value))
                elif outcome == "failed" and LOST.search(str(call.excinfo.value)):
                    self.lost = True
                traceback.clear_frames(call.excinfo.tb)  # they hold the test's tensors
            self.cases.append(dict(test=item.originalname, outcome=outcome, why=why[:300], case=item.name))


def refusal(text):
    """A refusal without the numbers of its case: of a kernel's list, what rows of the device and the dtype say."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [re.sub(r"^\S+: ", "", line) for line in lines[1:] if re.match(r"(?!problem: )\S+: ", line)]
    reasons = [each for each in reasons if not re.match(r"dtype|device|an oracle|no CUDA|not this", each)]
    near = [each for each in reasons if not each.startswith("head_dim")] or [each for each in reasons if "nearest" in each]
    return re.sub(r"\d+", "N", " | ".join([lines[0], *dict.fromkeys(near or reasons)][:3]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--generation", type=int, choices=[2, 3], default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", type=int, default=1 << 30)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--tests", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--forward", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    stand_in(arguments.source, arguments.generation)
    if arguments.device == "cpu":
        pretend_gpu()
    sample = Sample(arguments)
    pytest.mark.parametrize = sample.decorate
    text = (arguments.source / TEXTS[arguments.generation]).read_text(encoding="utf-8")
    if arguments.forward:
        os.environ["FLASH_ATTENTION_DISABLE_BACKWARD"] = "TRUE"
    room = [ROOM] if arguments.device == "cpu" else []
    for old, new in [*EDITS, *room, *([FORWARD] if arguments.forward else [])]:
        new = new or f'"{arguments.device}"'
        if old != new and old in text:
            print(f"edit: {old} -> {new}, {text.count(old)} times")
            text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"test_flash_attn_generation_{arguments.generation}.py"
        path.write_text(text, encoding="utf-8")
        pytest.main(["-q", "-p", "no:cacheprovider", "--tb=short", "--no-header", "-s" if arguments.cases < 3 else "-q",
                     "--rootdir", folder, str(path)], plugins=[sample])
    counts = collections.defaultdict(collections.Counter)
    for case in sample.cases:
        counts[case["test"]][case["outcome"]] += 1
    print(f"fattn {fattn.__version__}, torch {torch.__version__}, {arguments.source.name}, generation "
          f"{arguments.generation} on {arguments.device}, seed {arguments.seed}, {arguments.only or 'the whole grid'}"
          + (", without gradients where the tests can" if arguments.forward else ""))
    for test, count in [*counts.items(), ("all", sum(counts.values(), collections.Counter()))]:
        print(f"{test}: " + ", ".join(f"{count[name]} {name}" for name in ("passed", "failed", "refused", "skipped")))
    for outcome in ("refused", "failed", "skipped"):
        reasons = collections.Counter(case["why"] for case in sample.cases if case["outcome"] == outcome)
        for why, count in reasons.most_common():
            print(f"{outcome} {count}: {why}")
    first = next((case for case in sample.cases if case["outcome"] == "failed"), None)
    if first:
        only = first["case"].partition("[")[2].rstrip("]").replace(" ", ",")
        print(f"first failure: --generation {arguments.generation} --tests {first['test']} --cases 1 --only '{only}'")
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(case) + "\n" for case in sample.cases), encoding="utf-8")
    return 1 if any(case["outcome"] == "failed" for case in sample.cases) else 0


if __name__ == "__main__":
    sys.exit(main())
