#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a call from PyTorch costs the host beyond the library's own run(), in microseconds.

    bench/python_overhead.py [--device cpu|cuda] [--repeats N] [--fa3 hopper/flash_attn_interface.py]

One JSON line: `run` is Plan.run with everything prepared; `no_grad` and `grad` are fattn.torch.attention on the same
tensors, without and with autograd recording; `grad_backward` is forward and backward. Medians of bursts, taken in turn.
On CUDA only the host's time counts: work is enqueued, and the stream is drained between bursts. With --fa3, `fa3_grad` and
`fa3_grad_backward` are FlashAttention 3's own Python path, its compiled operators replaced by functions that allocate the
results and return: less than that path costs where the operators are there. Set beside it `grad` less `run`. Those of
`fa3_run_grad` and `fa3_run_grad_backward` also run what `run` and `run_backward` do: that path, had it our library below."""

import argparse
import importlib.util
import json
import statistics
import sys
import time
import types

import torch

import fattn
import fattn.torch as door
from fattn import _core
from fattn.torch import _memory


SCALARS = (0, 0, False, False, -1, -1, 0, None, 0.0, 0.0, False, False, "")


def least(q, k, v):
    """The least a call can do: the library's run(), its way from Python and nothing else, on memory that is there."""
    index = q.get_device()
    stream = torch.cuda.current_stream().cuda_stream if index >= 0 else 0
    threads = torch.get_num_threads()
    call = _core.forward(q, k, v, None, SCALARS, True, threads)
    room = _memory.workspace(call, index, stream, True) if call.workspace_bytes else (0, None)
    out, lse = torch.empty_like(q), torch.empty(q.shape[0], q.shape[2], q.shape[1], device=q.device)
    forward = lambda: _core.run_forward(call, stream, room[0], q, k, v, out, lse, None)
    forward()
    try:
        back = _core.backward(out, q, k, v, None, SCALARS, False, False, False, threads)
    except NotImplementedError:  # no row for the backward pass here
        return call, forward, None, (room, out, lse)
    back_room = _memory.workspace(back, index, stream, True) if back.workspace_bytes else (0, None)
    grads = [torch.empty_like(t) for t in (q, k, v)]
    backward = lambda: _core.run_backward(back, stream, back_room[0], out, None, q, k, v, out, lse, None, *grads, None, None)
    return call, forward, backward, (room, back_room, out, lse)


def fa3_python(path, run=lambda: None, run_backward=lambda: None):
    """flash_attn_func of that file over operators that allocate their results and do that."""
    for name in ("flash_attn_3", "flash_attn_3._C"):
        sys.modules[name] = types.ModuleType(name)
    spec = importlib.util.spec_from_file_location("flash_attn_interface", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def forward(q, *rest):
        results = torch.empty_like(q), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32), None, None
        run()
        return results

    def backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, *rest):
        run_backward()
        return dq, dk, dv, softmax_lse

    module.flash_attn_3_cuda = types.SimpleNamespace(fwd=forward, bwd=backward)
    return module.flash_attn_func


def bursts(calls, repeats, count, drain):
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            drain()
            begin = time.perf_counter()
            for _ in range(count):
                call()
            times[name].append((time.perf_counter() - begin) / count * 1e6)
    return {name: round(statistics.median(each), 2) for name, each in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=51)
    parser.add_argument("--fa3", help="FlashAttention 3's flash_attn_interface.py")
    arguments = parser.parse_args()
    cuda = arguments.device == "cuda"
    # Small, so that enqueued work never fills the queue; on the CPU the work itself is in every figure.
    shape = (1, 128, 1, 128) if cuda else (1, 1, 1, 16)
    dtype = torch.bfloat16 if cuda else torch.float32
    q, k, v = (torch.randn(shape, device=arguments.device, dtype=dtype) for _ in range(3))
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    plan, run, run_backward, kept = least(q, k, v)
    shared = (*(None,) * 12, *SCALARS)
    calls = {
        "run": run,
        "no_grad": lambda: door.attention(q, k, v),
        "no_grad_lse": lambda: door.attention(q, k, v, return_lse=True),
        "operator": lambda: torch.ops.fattn.forward.default(q, k, v, *shared),
        "grad": lambda: door.attention(*leaves),
        "operator_grad": lambda: torch.ops.fattn.forward.default(*leaves, *shared),
    }
    dout = torch.ones_like(q)
    if run_backward is not None:
        calls["run_backward"] = run_backward
        calls["grad_backward"] = lambda: torch.autograd.grad(door.attention(*leaves), leaves, dout)
    if arguments.fa3:
        theirs = fa3_python(arguments.fa3)
        calls["fa3_grad"] = lambda: theirs(*leaves)
        calls["fa3_grad_backward"] = lambda: torch.autograd.grad(theirs(*leaves), leaves, dout)
        if run_backward is not None:
            over_run = fa3_python(arguments.fa3, run, run_backward)
            calls["fa3_run_grad"] = lambda: over_run(*leaves)
            calls["fa3_run_grad_backward"] = lambda: torch.autograd.grad(over_run(*leaves), leaves, dout)
    result = bursts(calls, arguments.repeats, 100, torch.cuda.synchronize if cuda else lambda: None)
    machine = torch.cuda.get_device_name() if cuda else fattn.devices()[0][2]
    print(json.dumps({"device": machine, "torch": torch.__version__, "python": sys.version.split()[0],
                      "fattn": fattn.__version__, "problem": plan.problem, "kernel": plan.kernel, "us": result,
                      "beyond_run_us": round(result["no_grad"] - result["run"], 2)}))
    del kept


if __name__ == "__main__":
    main()
