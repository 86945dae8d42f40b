# SPDX-License-Identifier: Apache-2.0
"""How things are timed (docs/benchmarks.md, "Protocol"): bursts of about 6 ms after 12 ms of idling, implementations in
random order, the same number of samples for each."""

import dataclasses
import random
import statistics
import time

import torch

BURST_MS = 6.0
IDLE_S = 0.012
MOST_CALLS = 40


@dataclasses.dataclass
class Sample:
    us: float  # one call
    sm_clock_mhz: int | None = None
    peak_tflops: float | None = None  # CPU: measured just before and after
    steady: bool = True  # CPU: those two agree


class CudaBurst:
    """Forward calls replay from a CUDA graph, so that no launch is waited for; backward calls run in a loop, because
    autograd launches on streams of its own that a capture does not see."""

    def __init__(self, call, graph, clock):
        self.call, self.clock = call, clock
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
            torch.cuda.synchronize()
            begin, end = self._event(), self._event()
            begin.record(side)
            call()
            call()
            end.record(side)
            torch.cuda.synchronize()
        torch.cuda.current_stream().wait_stream(side)
        self.calls = max(1, min(MOST_CALLS, int(BURST_MS / max(begin.elapsed_time(end) / 2, 1e-3))))
        if graph:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                for _ in range(self.calls):
                    call()
            self.run = self.graph.replay
        else:
            self.run = self._loop
        self.run()
        torch.cuda.synchronize()

    @staticmethod
    def _event():
        return torch.cuda.Event(enable_timing=True)

    def _loop(self):
        for _ in range(self.calls):
            self.call()

    def sample(self):
        time.sleep(IDLE_S)
        begin, end = self._event(), self._event()
        begin.record()
        self.run()
        end.record()
        mhz = self.clock()  # while the burst runs
        torch.cuda.synchronize()
        return Sample(begin.elapsed_time(end) * 1e3 / self.calls, mhz)


class CpuBurst:
    """Beside each burst the machine's peak is measured, because a virtual machine's changes from second to second."""

    def __init__(self, call, peak):
        self.call, self.peak = call, peak
        call()
        begin = time.perf_counter()
        call()
        one = time.perf_counter() - begin
        self.calls = max(1, min(MOST_CALLS, int(BURST_MS / max(one * 1e3, 1e-3))))

    def sample(self):
        before = self.peak()
        time.sleep(IDLE_S)
        begin = time.perf_counter()
        for _ in range(self.calls):
            self.call()
        us = (time.perf_counter() - begin) * 1e6 / self.calls
        after = self.peak()
        return Sample(us, peak_tflops=(before + after) / 2, steady=abs(before - after) <= 0.1 * max(before, after))


def in_turn(bursts, samples, rng=random):
    """{name: [Sample, ...]}: every round takes one sample of each, in random order."""
    taken = {name: [] for name in bursts}
    for _ in range(samples):
        order = list(bursts)
        rng.shuffle(order)
        for name in order:
            taken[name].append(bursts[name].sample())
    return taken


def summary(samples):
    """(median_us, min_us, sm_clock_mhz, peak_flops). The last is what the measured peak would have done in the time of a
    call, None without one. Samples between two unlike peaks are left out when three others remain."""
    steady = [sample for sample in samples if sample.steady]
    used = steady if len(steady) >= 3 else samples

    def middle(values):
        return statistics.median(values) if values else None

    clock = middle([sample.sm_clock_mhz for sample in used if sample.sm_clock_mhz is not None])
    peak = middle([sample.peak_tflops * sample.us * 1e6 for sample in used if sample.peak_tflops is not None])
    times = [sample.us for sample in used]
    return statistics.median(times), min(times), clock, peak


def cpu_peak(dtype):
    """A function that measures what a matrix product reaches here and now, in TFLOP/s: in `dtype`, or in fp32 where that
    is faster. About 10 ms a call."""

    def product(size, kind):
        a, b = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
        out = torch.empty_like(a)

        def measure():
            best = 0.0
            for _ in range(3):
                begin = time.perf_counter()
                torch.mm(a, b, out=out)
                best = max(best, 2 * size**3 / (time.perf_counter() - begin) / 1e12)
            return best

        measure()
        return measure

    candidates = [product(768, kind) for kind in {dtype, torch.float32}]
    return max(candidates, key=lambda measure: measure())


def sm_clock(index=0):
    """A function that reads the SM clock in MHz; None where the driver does not tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)

        def read():
            return pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)

        read()
        return read
    except Exception:  # no module, no driver, no permission: the clock is extra
        return lambda: None


def matmul_tflops():
    """bf16 8192^3 through cuBLAS: says in the log whether the machine is its usual self."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    b = torch.randn_like(a)
    burst = CudaBurst(lambda: a @ b, True, lambda: None)
    return 2 * 8192**3 / statistics.median(burst.sample().us for _ in range(7)) / 1e6
