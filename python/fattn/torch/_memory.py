# SPDX-License-Identifier: Apache-2.0
"""Results, workspaces and streams."""

import threading

import numpy as np
import torch

_ALIGNMENT = 256
_KEPT_BYTES = 1 << 20  # larger workspaces are scratch: they are given back after each call
_KEPT_COUNT = 256
_on_cuda = {}

_capturing = getattr(torch._C, "_cuda_isCurrentStreamCapturing", None) or torch.cuda.is_current_stream_capturing
raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None) or (
    lambda index: torch.cuda.current_stream(index).cuda_stream
)


class _OfThread(threading.local):
    def __init__(self):
        self.kept = {}


_on_cpu = _OfThread()


def _zeros_on_cpu(count):
    # torch.zeros fills with the threads of OpenMP, which a forked child waits for and does not have.
    return torch.from_numpy(np.zeros(count, np.uint8))


def workspace(prepared, index, stream, keep):
    """(address, tensor) of zeroed memory for this run. Runs on one stream follow each other, as do those of one thread on
    the CPU, so they share; a graph that is being captured may be replayed beside others and gets its own. Compiled code
    may allocate from the memory of graphs to come, where nothing may be kept."""
    if index < 0:
        kept, key = _on_cpu.kept, prepared.serial
    elif prepared.workspace_bytes <= _KEPT_BYTES and (not keep or _capturing()):
        own = torch.zeros(prepared.workspace_bytes, dtype=torch.uint8, device=f"cuda:{index}")
        return own.data_ptr(), own
    else:
        kept, key = _on_cuda, (prepared.serial, stream)
    found = kept.get(key)
    if found is None:
        count = prepared.workspace_bytes
        memory = _zeros_on_cpu(count + _ALIGNMENT) if index < 0 else torch.zeros(
            count + _ALIGNMENT, dtype=torch.uint8, device=f"cuda:{index}")
        found = memory.data_ptr() + -memory.data_ptr() % _ALIGNMENT, memory
        if count <= _KEPT_BYTES:
            if len(kept) >= _KEPT_COUNT:
                kept.clear()
            kept[key] = found
    return found


def like(tensor, dense):
    """Room for a result of the shape of `tensor`, contiguous; `dense`: as that is."""
    return torch.empty_like(tensor) if dense else torch.empty_like(tensor, memory_format=torch.contiguous_format)
