#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is counted rather than timed, on a GPU: memory, DRAM traffic, errors, what a call costs the host.

    bench/measures.py memory  --library build/cuda/libfattn.so     bytes allocated, 1k to 1M tokens, beside standard attention
    bench/measures.py traffic --library build/cuda/libfattn.so     bytes of DRAM by the profiler (ncu), beside standard attention
    bench/measures.py errors  --library build/cuda/libfattn.so     distance from the fp64 answer, beside cuDNN
    bench/measures.py host --host-cost build/cuda/bench/host_cost  microseconds of plan() and run()

Needs PyTorch. Records go to bench/results/measures/<date>_<device>_<what>.jsonl; docs/benchmarks.md explains them."""

import argparse
import csv
import datetime
import json
import math
import pathlib
import statistics
import subprocess
import sys

import torch

import agreement
import fattn_c
import measure_records
import peers
import problem_text
from calls import Declined, FattnCall, TorchCall

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEEDS = 5
SAMPLED = 32  # rows looked at where all of them would take too long
KB = 1024


class Recorder:
    def __init__(self, what, options):
        now = datetime.datetime.now(datetime.timezone.utc)
        device = torch.cuda.get_device_name()
        short = device.replace("NVIDIA ", "").split()[0].lower()
        self.same = {
            "run": f"{now:%Y%m%dT%H%M%SZ}",
            "date": f"{now:%Y-%m-%d}",
            "commit": peers.commit_of(options.commit),
            "device": device,
        }
        options.out.mkdir(parents=True, exist_ok=True)
        self.path = options.out / f"{self.same['date']}_{short}_{what}.jsonl"
        self.file = open(self.path, "a", encoding="utf-8")

    def write(self, impl, version, problem, measure, value):
        record = self.same | {
            "impl": impl,
            "impl_version": version,
            "problem": problem,
            "measure": measure,
            "value": float(f"{value:.6g}"),
        }
        measure_records.write(self.file, record)
        print(impl, problem, measure, record["value"], flush=True)


def lean_standard(data):
    """softmax((scale Q) K^T) V with the score matrix in memory and no pass over it that could be saved."""
    problem = data.problem
    mask = agreement.dropped(problem, problem.seqlen_q, problem.seqlen_k, data.device)

    def forward(q, k, v):
        scores = (q * data.scale) @ k.transpose(-1, -2)
        if mask is not None:
            scores.masked_fill_(mask, float("-inf"))
        return torch.softmax(scores, -1) @ v

    return TorchCall(data, peers.heads_first(forward), "torch_softmax")


# Memory


def sampled_complaint(data, buffers):
    """Compares some rows of what fattn wrote with the fp32 answer of these rows; no N x N matrix. Empty: they agree."""
    problem = data.problem
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(problem.seqlen_q, (SAMPLED,), generator=generator).to(data.device)
    q, k, v, dout = (x[0].float().transpose(0, 1) for x in (data.q, data.k, data.v, data.dout))
    s = q[:, rows] @ k.transpose(1, 2) * data.scale
    lse = torch.logsumexp(s, -1)
    p = (s - lse[..., None]).exp_()
    pairs = [(buffers["lse"][0][:, rows, None], lse[..., None])]
    if problem.direction == "fwd":
        pairs.append((buffers["o"][0][rows].transpose(0, 1), p @ v))
    else:
        delta = (dout * buffers["o"][0].float().transpose(0, 1)).sum(-1)
        ds = p * (dout[:, rows] @ v.transpose(1, 2) - delta[:, rows, None]) * data.scale
        pairs.append((buffers["dq"][0][rows].transpose(0, 1), ds @ k))
        p = (q @ k[:, rows].transpose(1, 2) * data.scale - buffers["lse"][0][..., None]).exp_()  # columns of sampled keys
        ds = p * (dout @ v[:, rows].transpose(1, 2) - delta[..., None]) * data.scale
        pairs.append((buffers["dv"][0][rows].transpose(0, 1), p.transpose(1, 2) @ dout))
        pairs.append((buffers["dk"][0][rows].transpose(0, 1), ds.transpose(1, 2) @ q))
    for got, want in pairs:
        error = (torch.linalg.vector_norm(got.float() - want) / torch.linalg.vector_norm(want)).item()
        if not error <= agreement.LIMITS[problem.dtype][0]:
            return f"an output is off by {error:.3g} on sampled rows"
    return ""


class LongCall:
    """fattn at lengths where no oracle holds the scores: o and lse of the backward pass come from our own forward."""

    def __init__(self, data, text, library):
        problem = data.problem
        self.plan = library.plan(text, "cuda")
        lse = torch.full([1, problem.heads_q, problem.seqlen_q], math.nan, device="cuda")
        self.buffers = {"q": data.q, "k": data.k, "v": data.v, "o": torch.full_like(data.dout, math.nan), "lse": lse}
        if problem.direction == "bwd":
            self._run(library.plan(text.replace("bwd", "fwd") + " lse", "cuda"))
            self.buffers |= {"dout": data.dout} | {
                name: torch.full_like(like, math.nan) for name, like in (("dq", data.q), ("dk", data.k), ("dv", data.v))
            }

    def run(self):
        self._run(self.plan)

    def _run(self, plan):
        workspace = torch.zeros(plan.workspace_bytes, dtype=torch.uint8, device="cuda")
        pointers = fattn_c.buffers({name: tensor.data_ptr() for name, tensor in self.buffers.items()})
        stream = torch.cuda.current_stream().cuda_stream
        plan.run(pointers, workspace.data_ptr() or None, plan.workspace_bytes, stream)
        torch.cuda.synchronize()


def memory(options):
    library, recorder = fattn_c.Library(options.library), Recorder("memory", options)
    torch.set_float32_matmul_precision("highest")
    for direction in ("fwd", "bwd"):
        for thousands in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
            length = thousands * KB
            text = f"{direction} b1 hq2 hk2 sq{length} sk{length} d64 bf16" + (" lse" if direction == "fwd" else "")
            problem = problem_text.parse(text)
            canonical = library.canonical(text)
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            data = agreement.make_data(problem, "cuda")
            # The data has a gradient of O, which a forward pass is not given.
            idle = data.dout.untyped_storage().nbytes() if direction == "fwd" else 0
            inputs = torch.cuda.memory_allocated() - before - idle
            call = LongCall(data, text, library)
            torch.cuda.reset_peak_memory_stats()
            call.run()
            used = torch.cuda.max_memory_allocated() - before - idle
            wrong = sampled_complaint(data, call.buffers)
            if wrong:
                raise SystemExit(f"{text}: {wrong}")
            recorder.write("fattn", library.version, canonical, "allocated_bytes", used)
            recorder.write("fattn", library.version, canonical, "workspace_bytes", call.plan.workspace_bytes)
            del call
            matrices = 2 * length**2 * 2 * (3 if direction == "fwd" else 5)  # bytes of scores, weights and gradients
            if matrices < 0.6 * torch.cuda.mem_get_info()[0]:
                torch.cuda.empty_cache()
                standard = lean_standard(data)
                torch.cuda.reset_peak_memory_stats()
                start = torch.cuda.memory_allocated()
                standard.run()
                torch.cuda.synchronize()
                peak = torch.cuda.max_memory_allocated() - start + standard.held + inputs
                recorder.write("standard", torch.__version__, canonical, "allocated_bytes", peak)
                del standard
            del data
    print(recorder.path)


# DRAM traffic


TRAFFIC_IMPLS = ("fattn", "standard")
METRICS = ("dram__bytes_read.sum", "dram__bytes_write.sum")
MARKER = "spin_kernel"


def traffic_worker(options):
    """Runs under ncu. A kernel that only sleeps begins what belongs to each of traffic_names()."""
    library = fattn_c.Library(options.library)
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    for text in options.problems:
        data = agreement.make_data(problem_text.parse(text), "cuda")
        for impl in TRAFFIC_IMPLS:
            call = FattnCall(data, text, library, "cuda") if impl == "fattn" else lean_standard(data)
            call.run()
            flush.zero_()
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaProfilerStart()
            torch.cuda._sleep(1000)
            call.run()
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaProfilerStop()
            del call
            torch.cuda.empty_cache()


def read_profile(text):
    """Bytes of each part, in order, from ncu's CSV."""
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    parts, marker = [], None
    for row in csv.DictReader(lines[begin:]):
        if row["Metric Name"] not in METRICS:
            continue
        if MARKER in row["Kernel Name"]:
            if marker != row["ID"]:
                marker = row["ID"]
                parts.append(0.0)
            continue
        assert row["Metric Unit"] == "byte", row["Metric Unit"]
        parts[-1] += float(row["Metric Value"].replace(",", ""))
    return parts


def traffic(options):
    recorder, library = Recorder("traffic", options), fattn_c.Library(options.library)
    command = ["ncu", "--csv", "--print-units", "base", "--profile-from-start", "off", "--metrics", ",".join(METRICS)]
    command += ["--cache-control", "none", "--clock-control", "none", sys.executable, __file__]
    command += ["traffic-worker", *options.problems, "--library", options.library]
    done = subprocess.run(command, capture_output=True, text=True)
    parts = read_profile(done.stdout)
    if done.returncode or len(parts) != len(TRAFFIC_IMPLS) * len(options.problems):
        raise SystemExit(f"ncu: exit {done.returncode}, {len(parts)} parts\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    for i, value in enumerate(parts):
        impl, problem = TRAFFIC_IMPLS[i % len(TRAFFIC_IMPLS)], options.problems[i // len(TRAFFIC_IMPLS)]
        version = library.version if impl == "fattn" else torch.__version__
        recorder.write(impl, version, library.canonical(problem), "dram_bytes", value)
    print(recorder.path)


# Errors


def outlier_data(data, seed):
    """As in the FlashAttention-3 paper: normal, and one value in a thousand has a normal of variance 100 added."""
    generator = torch.Generator("cuda").manual_seed(seed + 1000)
    for x in (data.q, data.k, data.v):
        rare = torch.rand(x.shape, generator=generator, device="cuda") < 0.001
        x.copy_((x.float() + rare * 10 * torch.randn(x.shape, generator=generator, device="cuda")).to(x.dtype))


def real_data(data):
    """Layer 10 of SmolLM2 over a text (data/README.md), the keys' heads repeated, so that all take it alike."""
    from safetensors.torch import load_file

    tensors = load_file(ROOT / "data/smollm2_layer10_2048.safetensors")
    heads = data.problem.heads_q // tensors["k"].shape[2]
    data.q.copy_(tensors["q"].to(data.q.dtype))
    data.k.copy_(tensors["k"].repeat_interleave(heads, 2).to(data.k.dtype))
    data.v.copy_(tensors["v"].repeat_interleave(heads, 2).to(data.v.dtype))


def wide_answer(data):
    """o, dq, dk, dv in fp64, by heads."""
    problem = data.problem
    mask = agreement.dropped(problem, problem.seqlen_q, problem.seqlen_k, "cuda")
    found = {name: torch.empty(x.shape, dtype=torch.float64, device="cuda") for name, x in
             (("o", data.dout), ("dq", data.q), ("dk", data.k), ("dv", data.v))}
    for h in range(problem.heads_q):
        q, k, v, dout = (x[:, :, h].double() for x in (data.q, data.k, data.v, data.dout))
        s = q @ k.transpose(1, 2) * data.scale
        if mask is not None:
            s.masked_fill_(mask, -math.inf)
        p = torch.softmax(s, -1)
        found["o"][:, :, h] = p @ v
        ds = p * (dout @ v.transpose(1, 2) - (dout * found["o"][:, :, h]).sum(-1, keepdim=True)) * data.scale
        found["dq"][:, :, h], found["dk"][:, :, h], found["dv"][:, :, h] = (
            ds @ k, ds.transpose(1, 2) @ q, p.transpose(1, 2) @ dout)
    return found


def errors(options):
    library, recorder = fattn_c.Library(options.library), Recorder("errors", options)
    version = f"{torch.backends.cudnn.version()} (torch {torch.__version__})"
    for kind, dims, heads in (("normal", (64, 128, 256), 4), ("outliers", (64, 128, 256), 4), ("real", (64,), 9)):
        for dtype in ("bf16", "fp16"):
            for dim in dims:
                for mask in ("", " causal") if kind != "real" else (" causal",):
                    shape = f"b1 hq{heads} hk{heads} sq2048 sk2048 d{dim} {dtype}{mask}"
                    found = {}
                    for seed in range(SEEDS):
                        one_seed(library, shape, kind, seed, found)
                    for (impl, direction, name), values in found.items():
                        text = library.canonical(f"{direction} {shape}{' lse' if direction == 'fwd' else ''}")
                        recorder.write(impl, library.version if impl == "fattn" else version, text,
                                       f"rmse_{name}_{kind}", statistics.median(values))
    print(recorder.path)


def one_seed(library, shape, kind, seed, found):
    data = agreement.make_data(problem_text.parse(f"bwd {shape}"), "cuda", seed)
    if kind == "outliers":
        outlier_data(data, seed)
    if kind == "real":
        real_data(data)
    want = wide_answer(data)
    for direction in ("fwd", "bwd"):
        data.problem = problem_text.parse(f"{direction} {shape}{' lse' if direction == 'fwd' else ''}")
        text = f"{direction} {shape}{' lse' if direction == 'fwd' else ''}"
        for impl, bind in (("fattn", lambda: FattnCall(data, text, library, "cuda")), ("cudnn", lambda: peers.cudnn(data))):
            try:
                call = bind()
            except Declined as reason:
                raise SystemExit(f"{impl}: {text}: {reason}") from None
            call.run()
            torch.cuda.synchronize()
            for name, got in call.outputs().items():
                if name != "lse":
                    rmse = (got.double() - want[name]).square().mean().sqrt().item()
                    found.setdefault((impl, direction, name), []).append(rmse)


# Host


def host(options):
    recorder = Recorder("host", options)
    problems = ["fwd b1 hq1 hk1 sq128 sk128 d64 bf16 lse", "fwd b1 hq2 hk2 sq256 sk256 d128 bf16 causal lse"]
    done = subprocess.run([options.host_cost, *problems], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        found = json.loads(line)
        for measure in ("run_us", "launch_us", "plan_us"):
            recorder.write("fattn", "", found["problem"], f"host_{measure}", found[measure])
    print(recorder.path)


WHAT = {"memory": memory, "traffic": traffic, "traffic-worker": traffic_worker, "errors": errors, "host": host}


def grid_problems():
    return [f"{direction} b{16384 // s} hq32 hk32 sq{s} sk{s} d64 bf16" + (" lse" if direction == "fwd" else "")
            for direction in ("fwd", "bwd") for s in (1024, 2048, 4096, 8192, 16384)]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("problems", nargs="*", default=grid_problems(), help="traffic: problem lines")
    parser.add_argument("--library", help="libfattn.so")
    parser.add_argument("--host-cost", help="the program of bench/host_cost.cu")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/measures", help="folder of the records")
    parser.add_argument("--commit", help="default: asked from git")
    options = parser.parse_args(arguments)
    WHAT[options.what](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
