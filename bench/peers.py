#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times fattn beside other implementations of attention, in one process and in turn. The only file that knows them.

    bench/peers.py --library build/cuda/libfattn.so --device cuda --name forward bench/cases/forward_grid.txt
    bench/peers.py --library build/cpu/libfattn.so --device cpu "fwd hq16 sq4096 d128 bf16 causal lse"

Needs PyTorch. Every implementation first has to agree with the fp32 answer on the same random data; one that does not
is named and not timed. Records go to bench/results/<date>_<device>_<name>.jsonl; docs/benchmarks.md explains them."""

import argparse
import datetime
import functools
import inspect
import pathlib
import platform
import re
import subprocess
import sys
import time

import torch

import agreement
import bursts
import fattn_c
import problem_text
import records
from calls import Declined, FattnCall, TorchCall, require

HERE = pathlib.Path(__file__).resolve().parent
DIRECTIONS = {"fwd": "forward", "bwd": "backward"}


def dense_causal_or_full(problem):
    require(not problem.packed, "takes dense batches only")
    require(problem.window == (-1, -1), "has no window")
    require(
        not problem.causal or problem.seqlen_q == problem.seqlen_k,
        "its causal mask is top-left aligned, so lengths must be equal",
    )


def heads_first(function):
    """Wraps a function of [batch, heads, seqlen, head_dim] for our layout; views, no copies."""
    return lambda q, k, v: function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def cudnn(data):
    problem = data.problem
    dense_causal_or_full(problem)
    causal = problem.causal or problem.causal_top_left
    forward = torch.ops.aten._scaled_dot_product_cudnn_attention
    lse = problem.lse or problem.direction == "bwd"
    return TorchCall(
        data,
        heads_first(lambda q, k, v: forward(q, k, v, None, lse, is_causal=causal, scale=data.scale)[0]),
        "sdpa_cudnn",
    )


def fa2(data):
    problem = data.problem
    require(not problem.causal_top_left, "aligns bottom-right only")
    require(problem.head_dim == problem.head_dim_v, "needs head_dim = head_dim_v")
    left, right = (None if side < 0 else side for side in problem.window)
    right = 0 if problem.causal else right

    def forward(q, k, v):
        return torch.ops.aten._flash_attention_forward(
            q,
            k,
            v,
            data.cu_seqlens_q,
            data.cu_seqlens_k,
            problem.seqlen_q,
            problem.seqlen_k,
            0.0,
            problem.causal,
            False,
            scale=data.scale,
            window_size_left=left,
            window_size_right=right,
        )[0]

    return TorchCall(data, forward, "sdpa_flash")


def torch_cpu(data):
    problem = data.problem
    dense_causal_or_full(problem)
    require(problem.head_dim == problem.head_dim_v, "needs head_dim = head_dim_v")
    causal = problem.causal or problem.causal_top_left
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    group = problem.heads_q // problem.heads_kv

    def grouped(q, k, v):  # it has no grouped queries: torch's own enable_gqa repeats the keys, and so does this
        k, v = (x.repeat_interleave(group, 1) if group > 1 else x for x in (k, v))
        return forward(q, k, v, is_causal=causal, scale=data.scale)[0]

    return TorchCall(data, heads_first(grouped), "sdpa_flash_cpu")


def standard(data):
    """softmax(Q K^T) V as one writes it: the score matrix in memory, in the dtype of the inputs."""
    problem = data.problem
    require(not problem.packed, "takes dense batches only")
    group = problem.heads_q // problem.heads_kv
    scores = problem.batch * problem.heads_q * problem.seqlen_q * problem.seqlen_k
    need = scores * problem_text.DTYPE_BYTES[problem.dtype] * (5 if problem.direction == "bwd" else 3)
    free = torch.cuda.mem_get_info()[0] if data.device == "cuda" else free_memory()
    require(need < 0.7 * free, f"its score matrices need {need / 2**30:.0f} GiB, {free / 2**30:.0f} GiB are free")
    mask = agreement.dropped(problem, problem.seqlen_q, problem.seqlen_k, data.device)

    def forward(q, k, v):
        k, v = (x.repeat_interleave(group, 1) if group > 1 else x for x in (k, v))
        s = q @ k.transpose(-1, -2) * data.scale
        if mask is not None:
            s = s.masked_fill(mask, float("-inf"))
        return torch.softmax(s, -1) @ v

    return TorchCall(data, heads_first(forward), "torch_softmax")


def first(result):
    return result[0] if isinstance(result, (tuple, list)) else result


def fa4(data):
    from flash_attn.cute import flash_attn_func, flash_attn_varlen_func

    problem = data.problem
    require(not problem.causal_top_left, "aligns bottom-right only")
    window = tuple(None if side < 0 else side for side in problem.window)
    options = dict(softmax_scale=data.scale, causal=problem.causal, window_size=window)
    if "return_lse" in inspect.signature(flash_attn_func).parameters:
        options["return_lse"] = problem.lse
    if problem.packed:
        options |= dict(
            cu_seqlens_q=data.cu_seqlens_q,
            cu_seqlens_k=data.cu_seqlens_k,
            max_seqlen_q=problem.seqlen_q,
            max_seqlen_k=problem.seqlen_k,
        )
        return TorchCall(data, lambda q, k, v: first(flash_attn_varlen_func(q, k, v, **options)), "flash_attn.cute")
    return TorchCall(data, lambda q, k, v: first(flash_attn_func(q, k, v, **options)), "flash_attn.cute")


def fa3(data):
    import flash_attn_interface

    problem = data.problem
    require(not problem.causal_top_left, "aligns bottom-right only")
    options = dict(softmax_scale=data.scale, causal=problem.causal, window_size=problem.window)
    if problem.packed:
        options |= dict(
            cu_seqlens_q=data.cu_seqlens_q,
            cu_seqlens_k=data.cu_seqlens_k,
            max_seqlen_q=problem.seqlen_q,
            max_seqlen_k=problem.seqlen_k,
        )
        return TorchCall(
            data,
            lambda q, k, v: first(flash_attn_interface.flash_attn_varlen_func(q, k, v, **options)),
            "flash_attn_interface",
        )
    return TorchCall(
        data, lambda q, k, v: first(flash_attn_interface.flash_attn_func(q, k, v, **options)), "flash_attn_interface"
    )


def module_version(name):
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def peers_of(device):
    """{impl: (bind, version)} that could run here."""
    torch_version = f"torch {torch.__version__}"
    if device == "cpu":
        return {"torch_cpu": (torch_cpu, torch_version), "standard": (standard, torch_version)}
    found = {"cudnn": (cudnn, f"{torch.backends.cudnn.version()} ({torch_version})"), "fa2": (fa2, torch_version)}
    for name, bind, module, package in (
        ("fa4", fa4, "flash_attn.cute", "flash-attn-4"),
        ("fa3", fa3, "flash_attn_interface", "flash-attn-3"),
    ):
        try:
            __import__(module)
            found[name] = (bind, module_version(package))
        except Exception as error:  # absent, or broken against this PyTorch
            log(f"{name}: not here: {error!r:.200}")
    found["standard"] = (standard, torch_version)
    return found


def log(*words):
    print(*words, file=sys.stderr, flush=True)


def free_memory():
    match = re.search(r"MemAvailable:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text())
    return int(match[1]) * 1024 if match else 0


def device_name(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    match = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{match[1].strip() if match else platform.machine()}, {torch.get_num_threads()} threads"


def commit_of(given):
    if given:
        return given
    try:
        commit = subprocess.run(
            ["git", "-C", str(HERE), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        )
        return commit.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("this is no git checkout: say which commit the library is from with --commit") from None


def bind_all(text, problem, data, want, impls, options, library):
    """{impl: Call} of those that do the problem and agree with the answer."""
    calls = {}
    for impl in impls:
        try:
            if impl == "fattn":
                call = FattnCall(data, text, library, options.library_device)
            else:
                call = impls[impl][0](data)
            call.run()
            if options.device == "cuda":
                torch.cuda.synchronize()
            wrong = agreement.complaint(call.outputs(), want, problem.dtype)
        except Declined as reason:
            log(f"  {impl}: declined: {str(reason).splitlines()[0]}")
            continue
        except Exception as error:  # a peer may fail in any way; ours fails loudly below
            if impl == "fattn":
                options.wrong.append(f"fattn: {text}: {error!r:.300}")
            log(f"  {impl}: failed: {error!r:.300}")
            continue
        if wrong:
            log(f"  {impl}: WRONG, not timed: {wrong}")
            options.wrong.append(f"{impl}: {text}: {wrong}")
            continue
        calls[impl] = call
    return calls


def time_problem(text, impls, options, library, clock):
    """Yields a record for each implementation."""
    problem = problem_text.parse(text)
    if problem.direction not in DIRECTIONS:
        raise problem_text.ProblemError(f"peers time fwd and bwd, not {problem.direction}")
    flops = problem_text.flops(problem)  # also refuses words that the peers could not be told
    text = text.partition("|")[0].strip()
    text = library.canonical(text) if library else text
    log(text)
    data = agreement.make_data(problem, options.device)
    want = agreement.answer(data, 1 << 28 if options.device == "cuda" else 1 << 26)
    calls = bind_all(text, problem, data, want, impls, options, library)
    del want
    used = {impl: call.bytes() for impl, call in calls.items()}
    if options.device == "cuda":
        peak = library.device("cuda").peak_16bit_tflops if library else None
        make = functools.partial(bursts.CudaBurst, graph=problem.direction == "fwd", clock=clock)
    else:
        peak = None
        make = functools.partial(bursts.CpuBurst, peak=bursts.cpu_peak(data.q.dtype))
    timed = {}
    for impl, call in calls.items():
        try:
            timed[impl] = make(call.run)
        except RuntimeError as error:  # a call that cannot be captured
            options.wrong.append(f"{impl}: {text}: cannot be timed: {error!r:.300}")
    for impl, samples in bursts.in_turn(timed, options.samples).items():
        median, least, mhz, peak_flops = bursts.summary(samples)
        tflops = flops / median / 1e6
        fraction = flops / peak_flops if peak_flops else tflops / peak if peak else None
        log(f"  {impl:10} {median:10.1f} us {tflops:9.3f} TFLOP/s" + (f" {fraction:6.1%} of peak" if fraction else ""))
        yield {
            "run": options.run,
            "date": options.date,
            "commit": options.commit,
            "device": options.device_name,
            "impl": impl,
            "impl_version": library.version if impl == "fattn" else impls[impl][1],
            "problem": text,
            "kernel": calls[impl].kernel,
            "direction": DIRECTIONS[problem.direction],
            "median_us": round(median, 3),
            "min_us": round(least, 3),
            "tflops": float(f"{tflops:.6g}"),
            "fraction_of_peak": round(fraction, 4) if fraction else None,
            "sm_clock_mhz": mhz,
            "bytes": used[impl],
        }


def read_problems(arguments):
    texts = []
    for argument in arguments:
        texts += problem_text.read_cases(argument) if pathlib.Path(argument).is_file() else [argument]
    for text in texts:
        problem_text.parse(text)
    return texts


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="+", help="case files, or problem lines")
    parser.add_argument("--library", help="libfattn.so; without it only the peers are timed")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="cpu: threads of every implementation; default: all")
    parser.add_argument("--impls", help="comma separated; default: all that are here")
    parser.add_argument("--only", choices=DIRECTIONS, help="only forward or only backward problems")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--name", default="peers", help="last part of the file name")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results", help="folder of the records")
    parser.add_argument("--commit", help="default: asked from git")
    parser.add_argument("--time-limit", type=float, default=1e9, help="seconds after which no further problem is begun")
    options = parser.parse_args(arguments)

    begin = time.monotonic()
    now = datetime.datetime.now(datetime.timezone.utc)
    options.run, options.date, options.commit = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y-%m-%d}", commit_of(options.commit)
    options.library_device = options.device
    if options.threads is not None:
        if options.device != "cpu" or options.threads < 1:
            raise SystemExit(f"--threads = {options.threads}: at least 1, with --device cpu")
        torch.set_num_threads(options.threads)
        options.library_device = f"cpu:{options.threads}"
    options.device_name, options.wrong = device_name(options.device), []
    try:
        texts = [text for text in read_problems(options.problems) if options.only in (None, text.split()[0])]
        library = fattn_c.Library(options.library) if options.library else None
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    impls = ({"fattn": None} if library else {}) | peers_of(options.device)
    if options.impls:
        unknown = set(options.impls.split(",")) - impls.keys()
        if unknown:
            raise SystemExit(f"not here: {', '.join(sorted(unknown))}; there are {', '.join(impls)}")
        impls = {impl: impls[impl] for impl in options.impls.split(",")}

    log(f"{options.device_name}, torch {torch.__version__}, run {options.run}, {', '.join(impls)}")
    torch.set_float32_matmul_precision("highest")  # the answer is fp32, not tf32
    clock = lambda: None
    if options.device == "cuda":
        clock = bursts.sm_clock(torch.cuda.current_device())
        log(f"bf16 matrix product 8192^3: {bursts.matmul_tflops():.0f} TFLOP/s")
    short = (
        re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"NVIDIA |\(R\)|\(TM\)|,.*", "", options.device_name)).strip("-").lower()
    )
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.date}_{short}_{options.name}.jsonl"
    left_out = []
    with open(path, "a", encoding="utf-8") as file:
        for text in texts:
            if time.monotonic() - begin > options.time_limit:
                left_out.append(text)
                continue
            try:
                for record in time_problem(text, impls, options, library, clock):
                    records.write(file, record)
            except problem_text.ProblemError as error:
                log(f"{text}\n  skipped: {error}")
                left_out.append(text)
            except fattn_c.Error as error:
                log(f"{text}\n  skipped: {error}")
                left_out.append(text)
            if options.device == "cuda":
                torch.cuda.empty_cache()
    if options.device == "cuda":
        log(f"bf16 matrix product 8192^3: {bursts.matmul_tflops():.0f} TFLOP/s")
    for text in left_out:
        log(f"not timed: {text}")
    for line in options.wrong:
        log(f"WRONG: {line}")
    print(path)
    return 1 if options.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
