# SPDX-License-Identifier: Apache-2.0
"""From tensors to results without the dispatcher: what both operators and the short way do. The compiled part checks and
plans a call (_core.forward), the results are allocated here, and it runs (_core.run_forward)."""

import torch

from .. import _core
from .. import _options as o
from ._memory import like, raw_stream, workspace

# The optional tensors in the order of the compiled part, and where three of them are.
NAMES = ("cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "bias", "alibi_slopes", "sinks", "document_q",
         "document_k", "prefix", "dropout_seed", "dropout_offset")
TENSORS = len(NAMES)
BIAS, ALIBI, SINKS = 4, 5, 6

_ELEMENTS = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3, torch.int32: 5, torch.int64: 6}
if hasattr(torch, "float8_e4m3fn"):
    _ELEMENTS[torch.float8_e4m3fn] = 4


def refuse_layout(name, tensor):
    """Raises for a tensor that has no plain memory on the CPU or on a CUDA device."""
    if tensor.is_nested:
        raise ValueError(f"{name} is nested; nearest: attention_varlen with {name}.values() and its offsets")
    if tensor.layout is not torch.strided:
        raise ValueError(f"{name} has layout {tensor.layout}; nearest: {name}.to_dense()")
    if not (tensor.is_cpu or tensor.is_cuda):
        raise ValueError(f"{name} is on {tensor.device}: fattn computes on cpu and cuda; nearest: cpu")


_core.attach(torch.Tensor, getattr(torch.Tensor, "__dlpack_c_exchange_api__", None), _ELEMENTS, refuse_layout)


def forward(q, k, v, tensors, scalars, need_lse=True, keep=True):
    """o, and lse or None. `tensors` is None or has the order of NAMES."""
    prepared = _core.forward(q, k, v, tensors, scalars, need_lse, torch.get_num_threads())
    out = torch.empty_like(q) if prepared.like_q else q.new_empty(prepared.o_shape)
    lse = q.new_empty(prepared.lse_shape, dtype=torch.float32) if need_lse else None
    index = q.get_device()
    stream = raw_stream(index) if index >= 0 else 0
    address, memory = workspace(prepared, index, stream, keep) if prepared.workspace_bytes else (0, None)
    _core.run_forward(prepared, stream, address, q, k, v, out, lse, tensors)
    return out, lse


def _prepare_backward(dout, q, k, v, tensors, scalars, *flags):
    """Also `dout` as the kernel will read it. Its layout is autograd's choice, not the caller's: what no kernel reads is
    laid out anew here."""
    threads = torch.get_num_threads()
    if dout.is_neg():
        dout = dout.resolve_neg()
    if dout.stride(-1) not in (0, 1) and dout.shape[-1] > 1:
        dout = dout.contiguous()
    try:
        return dout, _core.backward(dout, q, k, v, tensors, scalars, *flags, threads)
    except NotImplementedError:
        if dout.is_contiguous():
            raise
    dout = dout.contiguous()  # expanded by out.sum().backward(), and the kernel reads only what it can copy in tiles
    return dout, _core.backward(dout, q, k, v, tensors, scalars, *flags, threads)


def backward(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, tensors, scalars, keep=True):
    """dq, dk, dv, and dbias and dsink or None."""
    dout, prepared = _prepare_backward(dout, q, k, v, tensors, scalars, dlse is not None, need_dbias, need_dsink)
    dense_q, dense_k, dense_v = prepared.dense
    grads = [like(q, dense_q), like(k, dense_k), like(v, dense_v), None, None]
    if need_dbias:
        grads[3] = q.new_empty(tensors[BIAS].shape, dtype=torch.float32)
    if need_dsink:
        grads[4] = q.new_empty(tensors[SINKS].shape, dtype=torch.float32)
    if prepared.empty:
        return [grad if grad is None else grad.zero_() for grad in grads]
    if dlse is not None:
        dlse = dlse.contiguous()  # one number a row
    index = q.get_device()
    stream = raw_stream(index) if index >= 0 else 0
    address, memory = workspace(prepared, index, stream, keep) if prepared.workspace_bytes else (0, None)
    _core.run_backward(prepared, stream, address, dout, dlse, q, k, v, out, lse, tensors, *grads)
    return grads
