# SPDX-License-Identifier: Apache-2.0
"""Attention on PyTorch tensors, CPU and CUDA, forward and backward. The only file here that imports torch.

    out = attention(q, k, v, causal=True)      # (batch, seqlen, heads, head_dim)

Two operators, torch.ops.fattn.forward and .backward, hand addresses, shapes and strides to the library: no symbol of
PyTorch is linked, so this works with any version that has torch.library."""

import threading

import torch

from . import _core
from . import _options as o

__all__ = ["attention", "attention_varlen", "scaled_dot_product_attention"]

_CODES = {torch.float64: o.FP64, torch.float32: o.FP32, torch.bfloat16: o.BF16, torch.float16: o.FP16}
if hasattr(torch, "float8_e4m3fn"):
    _CODES[torch.float8_e4m3fn] = o.E4M3
_UNBOUNDED = (-1, -1)
_Tensor, _STRIDED = torch.Tensor, torch.strided

# The optional arguments that both operators share, in the order of _core.Plan.run, then the scalars.
_SHARED = (
    "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seqused_q, Tensor? seqused_k, Tensor? bias, "
    "Tensor? alibi_slopes, Tensor? sinks, Tensor? document_q, Tensor? document_k, Tensor? prefix, "
    "Tensor? dropout_seed, Tensor? dropout_offset, SymInt max_seqlen_q, SymInt max_seqlen_k, bool causal, "
    "bool causal_top_left, SymInt window_left, SymInt window_right, SymInt chunk, float? softmax_scale, float softcap, "
    "float dropout_p, bool deterministic, bool batch_invariant, str kernel"
)
_LIBRARY = torch.library.Library("fattn", "DEF")
_LIBRARY.define(f"forward(Tensor q, Tensor k, Tensor v, {_SHARED}) -> (Tensor o, Tensor lse)")
_LIBRARY.define(
    "backward(Tensor dout, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, bool need_dbias, "
    f"bool need_dsink, {_SHARED}) -> (Tensor dq, Tensor dk, Tensor dv, Tensor dbias, Tensor dsink)"
)
_NAMES = ("cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "bias", "alibi_slopes", "sinks", "document_q",
          "document_k", "prefix", "dropout_seed", "dropout_offset")
_TENSORS = len(_NAMES)
_BIAS, _ALIBI, _SINKS = 4, 5, 6


# --- memory and streams -----------------------------------------------------------------------------------------------

_ALIGNMENT = 256
_KEPT_BYTES = 1 << 20  # larger workspaces are scratch: they are given back after each call
_KEPT_COUNT = 256
_local = threading.local()
_cuda_workspaces = {}

_capturing = getattr(torch._C, "_cuda_isCurrentStreamCapturing", None) or torch.cuda.is_current_stream_capturing
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None) or (
    lambda index: torch.cuda.current_stream(index).cuda_stream
)


def _workspace(plan, count, index, stream, keep=True):
    """A zeroed tensor for this run. Runs on one stream follow each other, as do those of one thread on the CPU, so they
    share; a graph that is being captured may be replayed beside others and gets its own. Compiled code may allocate from
    the memory of graphs to come, where nothing may be kept."""
    if index < 0:
        kept, key = _local.__dict__.setdefault("workspaces", {}), plan.serial
    elif count <= _KEPT_BYTES and (not keep or _capturing()):
        return torch.zeros(count, dtype=torch.uint8, device=f"cuda:{index}")
    else:
        kept, key = _cuda_workspaces, (plan.serial, stream)
    workspace = kept.get(key)
    if workspace is None:
        device = "cpu" if index < 0 else f"cuda:{index}"
        workspace = torch.zeros(count + _ALIGNMENT, dtype=torch.uint8, device=device)
        workspace = workspace[-workspace.data_ptr() % _ALIGNMENT :][:count]
        if count <= _KEPT_BYTES:
            if len(kept) >= _KEPT_COUNT:
                kept.clear()
            kept[key] = workspace
    return workspace


def _empty(like):
    """Room for a result of the shape of `like`, contiguous."""
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _run(plan, index, addresses, keep=True):
    stream = _raw_stream(index) if index >= 0 else 0
    count = plan.workspace_bytes
    if count:
        workspace = _workspace(plan, count, index, stream, keep)
        plan.run(stream, workspace.data_ptr(), count, *addresses)
    else:
        plan.run(stream, 0, 0, *addresses)


# --- what a call may look like ----------------------------------------------------------------------------------------


def _refuse_device(device):
    raise ValueError(f"device = {device.type}: fattn computes on cpu and cuda; nearest: cpu")


def _refuse_types(**values):
    for name, value in values.items():
        if not isinstance(value, _Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; nearest: a torch.Tensor")


def _given(*tensors):
    """The optional tensors of a call, in the order of _NAMES."""
    for name, tensor in zip(_NAMES, tensors):
        if tensor is not None and not isinstance(tensor, _Tensor):
            _refuse_types(**{name: tensor})
    return tensors


def _refuse_layout(**tensors):
    for name, tensor in tensors.items():
        if tensor.is_nested:
            raise ValueError(f"{name} is nested; nearest: attention_varlen with {name}.values() and its offsets")
        if tensor.layout is not _STRIDED:
            raise ValueError(f"{name} has layout {tensor.layout}; nearest: {name}.to_dense()")


def _length(name, value):
    if value.numel() != 1:
        raise ValueError(f"{name} has {value.numel()} elements; nearest: an integer, or a tensor of one element")
    return int(value.item())


def _side(name, tensor, dtype, index, shape=None):
    if tensor.dtype is not dtype:
        raise TypeError(f"{name} has dtype {tensor.dtype}; nearest: {dtype}")
    if tensor.get_device() != index:
        raise ValueError(f"{name} is on {tensor.device}; nearest: the device of q, "
                         f"{'cpu' if index < 0 else f'cuda:{index}'}")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} is not contiguous; nearest: {name}.contiguous()")
    if shape is not None and tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; nearest: {tuple(shape)}")
    return tensor.data_ptr()


def _check_like_q(q, index, **tensors):
    for name, tensor in tensors.items():
        if tensor.dtype is not q.dtype:
            raise TypeError(f"{name} has dtype {tensor.dtype} and q has {q.dtype}; nearest: {q.dtype}")
        if tensor.get_device() != index:  # the operators may be called without the checks of the public functions
            raise ValueError(f"{name} is on {tensor.device} and q is on {q.device}; nearest: {q.device}")


def _alike(q, k, v, index):
    dtype = q.dtype
    return k.dtype is dtype and v.dtype is dtype and k.get_device() == index and v.get_device() == index


def _shared_arrays(q, k, index, tensors):
    """Addresses in the order of _SHARED, and the flags of what is given."""
    (cu_q, cu_k, used_q, used_k, bias, alibi, sinks, document_q, document_k, prefix, seed, offset) = tensors
    int32, float32 = torch.int32, torch.float32
    batch = q.shape[0]
    if q.dim() == 3 or k.dim() == 3:
        if (cu_q is None) == (q.dim() == 3) or (cu_k is None) == (k.dim() == 3):
            raise ValueError("packed tensors (total, heads, head_dim) need cu_seqlens, others do not take it")
        batch = (cu_q if cu_q is not None else cu_k).shape[0] - 1
        if batch < 1:
            raise ValueError(f"cu_seqlens has {batch + 1} entries; nearest: 2")
    elif cu_q is not None or cu_k is not None:
        raise ValueError("cu_seqlens goes with packed tensors (total, heads, head_dim); nearest: attention_varlen")
    heads = q.shape[-2]
    flags = 0
    out = [0] * _TENSORS
    if cu_q is not None:
        out[0] = _side("cu_seqlens_q", cu_q, int32, index, (batch + 1,))
    if cu_k is not None:
        out[1] = _side("cu_seqlens_k", cu_k, int32, index, (batch + 1,))
    if used_q is not None:
        out[2] = _side("seqused_q", used_q, int32, index, (batch,))
        flags |= o.SEQUSED_Q
    if used_k is not None:
        out[3] = _side("seqused_k", used_k, int32, index, (batch,))
        flags |= o.SEQUSED_K
    if bias is not None:
        if bias.dtype not in _CODES:
            raise TypeError(f"bias has dtype {bias.dtype}; nearest: torch.float32")
        out[4] = _side("bias", bias, bias.dtype, index)
    if alibi is not None:
        if alibi.shape != (heads,) and alibi.shape != (batch, heads):
            raise ValueError(f"alibi_slopes has shape {tuple(alibi.shape)}; nearest: {(heads,)} or {(batch, heads)}")
        out[5] = _side("alibi_slopes", alibi, float32, index)
        flags |= o.ALIBI_HEAD if alibi.dim() == 1 else o.ALIBI_BATCH
    if sinks is not None:
        out[6] = _side("sinks", sinks, float32, index, (heads,))
        flags |= o.SINKS
    if document_q is not None or document_k is not None:
        if document_q is None or document_k is None:
            raise ValueError("document_q and document_k go together; nearest: both")
        out[7] = _side("document_q", document_q, int32, index, q.shape[:-2])
        out[8] = _side("document_k", document_k, int32, index, k.shape[:-2])
        flags |= o.DOCUMENTS
    if prefix is not None:
        out[9] = _side("prefix", prefix, int32, index, (batch,))
        flags |= o.PREFIX
    if seed is not None:
        out[10] = _side("dropout_seed", seed, torch.int64, index, (1,))
        out[11] = _side("dropout_offset", offset, torch.int64, index, (1,))
    return batch, flags, out


_NO_ARRAYS = (None,) * _TENSORS  # by identity: comparing tensors is another matter
_NO_ADDRESSES = [0] * _TENSORS


def _plan(backward, q, k, v, index, options, dout, batch, scalars, flags, bias):
    threads = 0 if index >= 0 else torch.get_num_threads()
    code = _CODES.get(q.dtype)
    if code is None:
        raise TypeError(f"q has dtype {q.dtype}; nearest: torch.bfloat16")
    if dout is None:
        address, shape, stride = 0, None, None
    else:
        address, shape, stride = dout.data_ptr(), dout.shape, dout.stride()
    return _core.plan(
        backward, code, index, threads, options, q.data_ptr(), q.shape, q.stride(), k.data_ptr(), k.shape, k.stride(),
        v.data_ptr(), v.shape, v.stride(), address, shape, stride, batch, max(1, scalars[0]), max(0, scalars[1]), flags,
        None if bias is None else bias.shape, 0 if bias is None else _CODES[bias.dtype])


def _lse_shape(q):
    return (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])


def _forward(q, k, v, tensors, scalars, need_lse=True, keep=True):
    index = q.get_device()
    if not _alike(q, k, v, index):
        _check_like_q(q, index, k=k, v=v)
    if tensors is _NO_ARRAYS and q.dim() == 4:
        batch, flags, addresses = 0, 0, _NO_ADDRESSES
    else:
        batch, flags, addresses = _shared_arrays(q, k, index, tensors)
    if q.shape[-1] != v.shape[-1]:
        out = q.new_empty((*q.shape[:-1], v.shape[-1]))
    else:
        out = torch.empty_like(q) if q.is_contiguous() else _empty(q)
    lse = q.new_empty(_lse_shape(q), dtype=torch.float32) if need_lse else None
    if out.numel() == 0:
        return out, lse
    plan = _plan(False, q, k, v, index, o.options(*scalars[2:]), None, batch, scalars,
                 flags | o.LSE if need_lse else flags, tensors[_BIAS])
    _run(plan, index, (q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), lse.data_ptr() if need_lse else 0, 0,
                       *addresses, 0, 0, 0, 0, 0, 0, 0), keep)
    return out, lse


def _forward_op(q, k, v, *shared):
    return _forward(q, k, v, shared[:_TENSORS], shared[_TENSORS:], keep=False)


def _backward(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, tensors, scalars, keep=True):
    """dq, dk, dv, and dbias and dsink or None."""
    index = q.get_device()
    if not (_alike(q, k, v, index) and _alike(q, out, dout, index)):
        _check_like_q(q, index, k=k, v=v, o=out, dout=dout)
    if tensors is _NO_ARRAYS and q.dim() == 4:
        batch, flags, addresses = 0, 0, _NO_ADDRESSES
    else:
        batch, flags, addresses = _shared_arrays(q, k, index, tensors)
    bias = tensors[_BIAS]
    dq, dk, dv = _empty(q), _empty(k), _empty(v)
    dbias = q.new_empty(bias.shape, dtype=torch.float32) if need_dbias else None
    dsink = q.new_empty((q.shape[-2],), dtype=torch.float32) if need_dsink else None
    if out.numel() == 0:
        return tuple(None if t is None else t.zero_() for t in (dq, dk, dv, dbias, dsink))
    # The layout of a gradient is autograd's choice, not the caller's: what no kernel reads is laid out anew here.
    if dout.stride(-1) not in (0, 1) and dout.shape[-1] > 1:
        dout = dout.contiguous()
    flags |= (o.DLSE if dlse is not None else 0) | (o.DBIAS if need_dbias else 0) | (o.DSINK if need_dsink else 0)
    options = o.options(*scalars[2:])
    try:
        plan = _plan(True, q, k, v, index, options, dout, batch, scalars, flags, bias)
    except NotImplementedError:
        if dout.is_contiguous():
            raise
        dout = dout.contiguous()  # expanded by out.sum().backward(), and the kernel reads only what it can copy in tiles
        plan = _plan(True, q, k, v, index, options, dout, batch, scalars, flags, bias)
    if dlse is not None:
        dlse = dlse.contiguous()  # one number a row; kept alive until the run below
    _run(plan, index, (q.data_ptr(), k.data_ptr(), v.data_ptr(), _side("o", out, q.dtype, index),
                       _side("lse", lse, torch.float32, index, _lse_shape(q)), 0, *addresses, dout.data_ptr(),
                       0 if dlse is None else _side("dlse", dlse, torch.float32, index, lse.shape), dq.data_ptr(),
                       dk.data_ptr(), dv.data_ptr(), dbias.data_ptr() if need_dbias else 0,
                       dsink.data_ptr() if need_dsink else 0), keep)
    return dq, dk, dv, dbias, dsink


def _backward_op(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, *shared):
    dq, dk, dv, dbias, dsink = _backward(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, shared[:_TENSORS],
                                         shared[_TENSORS:], keep=False)
    none = lambda: q.new_empty((0,), dtype=torch.float32)
    return dq, dk, dv, none() if dbias is None else dbias, none() if dsink is None else dsink


for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("forward", _forward_op, _key)
    _LIBRARY.impl("backward", _backward_op, _key)


@torch.library.register_fake("fattn::forward", lib=_LIBRARY)
def _(q, k, v, *shared):
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(_lse_shape(q), dtype=torch.float32)


@torch.library.register_fake("fattn::backward", lib=_LIBRARY)
def _(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, *shared):
    bias = shared[_BIAS]
    return (
        *(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v)),
        q.new_empty(bias.shape if need_dbias else (0,), dtype=torch.float32),
        q.new_empty((q.shape[-2],) if need_dsink else (0,), dtype=torch.float32),
    )


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    q, k, v, *shared = inputs
    out, lse = output
    _refuse_slopes(shared[_ALIBI])
    ctx.save_for_backward(q, k, v, out, lse, *shared[:_TENSORS])
    ctx.scalars = tuple(shared[_TENSORS:])
    ctx.need_dbias = ctx.needs_input_grad[3 + _BIAS]
    ctx.need_dsink = ctx.needs_input_grad[3 + _SINKS]


def _refuse_slopes(slopes):
    if slopes is not None and slopes.requires_grad:
        raise NotImplementedError("alibi_slopes requires a gradient, which no kernel computes; nearest: a bias")


def _no_dout(out):
    """Where only lse was used."""
    return torch.zeros((1,) * out.dim(), dtype=out.dtype, device=out.device).expand(out.shape)


def _gradients(ctx, dout, dlse):
    q, k, v, out, lse, *tensors = ctx.saved_tensors
    grads = [None] * (3 + _TENSORS + len(ctx.scalars))
    if dout is None and dlse is None:
        return tuple(grads)
    dq, dk, dv, dbias, dsink = torch.ops.fattn.backward.default(
        _no_dout(out) if dout is None else dout, dlse, q, k, v, out, lse, ctx.need_dbias, ctx.need_dsink, *tensors,
        *ctx.scalars)
    grads[:3] = dq, dk, dv
    if ctx.need_dbias:
        grads[3 + _BIAS] = dbias.to(tensors[_BIAS].dtype)
    if ctx.need_dsink:
        grads[3 + _SINKS] = dsink
    return tuple(grads)


def _refuse_double(ctx, *grads):
    raise NotImplementedError("double backward: fattn computes first derivatives only; nearest: "
                              "torch.nn.functional.scaled_dot_product_attention with SDPBackend.MATH")


torch.library.register_autograd("fattn::forward", _gradients, setup_context=_save, lib=_LIBRARY)
torch.library.register_autograd("fattn::backward", _refuse_double, lib=_LIBRARY)


class _Eager(torch.autograd.Function):
    """The same derivative without the dispatcher, for calls that only autograd wants to see. `tensors` holds bias and
    sinks once more: an argument of a Function costs more than an element of a tuple."""

    @staticmethod
    def forward(ctx, q, k, v, bias, sinks, tensors, scalars):
        output = _forward(q, k, v, tensors, scalars)
        ctx.set_materialize_grads(False)
        if tensors is _NO_ARRAYS:
            ctx.save_for_backward(q, k, v, *output)
        else:
            _refuse_slopes(tensors[_ALIBI])
            ctx.save_for_backward(q, k, v, *output, *tensors)
        ctx.scalars = scalars
        return output

    @staticmethod
    def backward(ctx, dout, dlse):
        q, k, v, out, lse, *tensors = ctx.saved_tensors
        if dout is None and dlse is None:
            return (None,) * 7
        if dout is None:
            dout = _no_dout(out)
        need_dbias, need_dsink = ctx.needs_input_grad[3:5]
        tensors = tensors or _NO_ARRAYS
        if torch.is_grad_enabled():
            # Under create_graph the operator is recorded, so that a second derivative is refused and not silently zero.
            grads = torch.ops.fattn.backward.default(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, *tensors,
                                                     *ctx.scalars)
        else:
            grads = _backward(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, tensors, ctx.scalars)
        dq, dk, dv, dbias, dsink = grads
        dbias = dbias.to(tensors[_BIAS].dtype) if need_dbias else None
        return dq, dk, dv, dbias, dsink if need_dsink else None, None, None


# --- the public functions ---------------------------------------------------------------------------------------------

_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", None)
_function_modes = getattr(torch._C, "_len_torch_function_stack", None)
_functorch_level = getattr(getattr(torch._C, "_functorch", None), "maybe_current_level", None)
_SHORT_CUT = None not in (_dispatch_modes, _function_modes, _functorch_level)
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def _watched(q, k, v):
    """Does a compiler, a mode or a subclass want to see the operator? If not, the dispatcher, which costs as much as the
    rest of a call, is left out."""
    if not _SHORT_CUT or torch.compiler.is_compiling():
        return True
    if type(q) not in _PLAIN or type(k) not in _PLAIN or type(v) not in _PLAIN:
        return True
    return _dispatch_modes() > 0 or _function_modes() > 0 or _functorch_level() is not None or q.is_meta


def _recorded(q, k, v, tensors):
    if not torch.is_grad_enabled():
        return False
    if q.requires_grad or k.requires_grad or v.requires_grad:
        return True
    return tensors is not _NO_ARRAYS and any(t is not None and t.requires_grad for t in tensors)


def _cast_for_autocast(device_type, tensors):
    dtype = torch.get_autocast_dtype(device_type)
    return [t.to(dtype) if t.dtype is torch.float32 else t for t in tensors]


def _seed(dropout_p, generator, device):
    if not dropout_p:
        return None, None
    words = torch.randint(0, 1 << 62, (2,), dtype=torch.int64, device=device, generator=generator)
    return words[:1], words[1:]


def _call(q, k, v, tensors, lengths, causal, causal_top_left, window, chunk, softmax_scale, softcap, dropout_p,
          generator, deterministic, batch_invariant, return_lse, kernel):
    if not (isinstance(q, _Tensor) and isinstance(k, _Tensor) and isinstance(v, _Tensor)):
        _refuse_types(q=q, k=k, v=v)
    if q.layout is not _STRIDED or k.layout is not _STRIDED or v.layout is not _STRIDED or q.is_nested or k.is_nested:
        _refuse_layout(q=q, k=k, v=v)
    if q.is_cuda:
        kind, index = "cuda", q.get_device()
        together = k.is_cuda and v.is_cuda and k.get_device() == index and v.get_device() == index
    elif q.is_cpu:
        kind, together = "cpu", k.is_cpu and v.is_cpu
    else:
        kind, together = q.device.type, k.device == q.device and v.device == q.device
        if kind != "meta":
            _refuse_device(q.device)
    if not together:
        name, tensor = ("k", k) if k.device != q.device else ("v", v)
        raise ValueError(f"{name} is on {tensor.device} and q is on {q.device}; nearest: {q.device}")
    if kind != "meta" and torch.is_autocast_enabled(kind):
        q, k, v = _cast_for_autocast(kind, (q, k, v))
    if dropout_p:
        tensors = (*tensors[:-2], *_seed(dropout_p, generator, q.device))
    left, right = (-1, -1) if window is _UNBOUNDED else o.two(window)
    if softmax_scale is not None and type(softmax_scale) is not float:
        softmax_scale = o.real("softmax_scale", softmax_scale)
    if torch.are_deterministic_algorithms_enabled():
        deterministic = True
    scalars = (*lengths, causal, causal_top_left, left, right, chunk, softmax_scale, softcap, dropout_p, deterministic,
               batch_invariant, kernel)
    if _watched(q, k, v):
        out, lse = torch.ops.fattn.forward.default(q, k, v, *tensors, *scalars)
    elif _recorded(q, k, v, tensors):
        out, lse = _Eager.apply(q, k, v, tensors[_BIAS], tensors[_SINKS], tensors, scalars)
    else:
        out, lse = _forward(q, k, v, tensors, scalars, return_lse)
    return (out, lse) if return_lse else out


def attention(q, k, v, *, causal=False, window=_UNBOUNDED, softmax_scale=None, softcap=0.0, chunk=0, causal_top_left=False,
              bias=None, alibi_slopes=None, sinks=None, seqused_q=None, seqused_k=None, document_q=None, document_k=None,
              prefix=None, dropout_p=0.0, generator=None, deterministic=False, batch_invariant=False, return_lse=False,
              kernel=""):
    """Exact attention of q (batch, seqlen_q, heads_q, head_dim), k and v (batch, seqlen_k, heads_kv, head_dim).

    Returns o, or (o, lse) with lse fp32 (batch, heads_q, seqlen_q). Gradients flow to q, k, v, bias and sinks, from o
    and from lse. docs/python.md has every argument."""
    if (seqused_q is None and seqused_k is None and bias is None and alibi_slopes is None and sinks is None
            and document_q is None and document_k is None and prefix is None):
        tensors = _NO_ARRAYS
    else:
        tensors = _given(None, None, seqused_q, seqused_k, bias, alibi_slopes, sinks, document_q, document_k, prefix, None,
                         None)
    return _call(q, k, v, tensors, (0, 0), causal, causal_top_left, window, chunk, softmax_scale, softcap, dropout_p,
                 generator, deterministic, batch_invariant, return_lse, kernel)


def attention_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *, causal=False, window=(-1, -1),
                     softmax_scale=None, softcap=0.0, chunk=0, causal_top_left=False, bias=None, alibi_slopes=None,
                     sinks=None, seqused_q=None, seqused_k=None, document_q=None, document_k=None, prefix=None,
                     dropout_p=0.0, generator=None, deterministic=False, batch_invariant=False, return_lse=False,
                     kernel=""):
    """The same for packed sequences: q (total_q, heads_q, head_dim), int32 cu_seqlens of batch + 1 entries on the device
    of q. max_seqlen may be an integer or a tensor of one element. lse is (heads_q, total_q). Either side may be dense
    (batch, seqlen, heads, head_dim) with None for its cu_seqlens."""
    if isinstance(max_seqlen_q, torch.Tensor):
        max_seqlen_q = _length("max_seqlen_q", max_seqlen_q)
    if isinstance(max_seqlen_k, torch.Tensor):
        max_seqlen_k = _length("max_seqlen_k", max_seqlen_k)
    tensors = _given(cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, bias, alibi_slopes, sinks, document_q, document_k,
                     prefix, None, None)
    return _call(q, k, v, tensors, (max_seqlen_q, max_seqlen_k), causal, causal_top_left, window, chunk, softmax_scale,
                 softcap, dropout_p, generator, deterministic, batch_invariant, return_lse, kernel)


def _narrow(mask):
    """The same mask without the elements that broadcasting repeats: dimensions of stride 0 have extent 1."""
    for dimension in range(mask.dim()):
        if mask.shape[dimension] > 1 and mask.stride(dimension) == 0:
            mask = mask.narrow(dimension, 0, 1)
    return mask


def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None,
                                 enable_gqa=False):
    """torch.nn.functional.scaled_dot_product_attention: tensors (..., heads, seqlen, head_dim), causal from the top left,
    boolean masks keep where True, float masks are added."""
    if attn_mask is not None and is_causal:
        raise ValueError("attn_mask and is_causal cannot both be given; nearest: is_causal=False")
    rank = query.dim()
    if rank < 2 or key.dim() != rank or value.dim() != rank:
        raise ValueError(f"query, key and value have {rank}, {key.dim()} and {value.dim()} dimensions; nearest: 4 each")
    lead = query.shape[:-3]
    if rank != 4:
        query, key, value = (t.reshape(-1, *((1,) if rank == 2 else ()), *t.shape[-3:]) for t in (query, key, value))
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError(f"query has {query.shape[1]} heads and key has {key.shape[1]}; nearest: enable_gqa=True")
    bias = attn_mask
    if bias is not None:
        if bias.dtype is torch.bool:
            bias = _narrow(bias)
            bias = torch.zeros((), device=bias.device).masked_fill(~bias, float("-inf"))
        elif bias.dtype is not query.dtype and bias.dtype is not torch.float32:
            raise TypeError(f"attn_mask has dtype {bias.dtype}; nearest: torch.bool or {query.dtype}")
        if bias.dim() > 4:
            bias = bias.reshape(-1, *bias.shape[-3:]) if bias.shape[:-3] == lead else bias
        bias = _narrow(bias).contiguous()
    out = attention(*(t.transpose(1, 2) for t in (query, key, value)), causal_top_left=is_causal, bias=bias,
                    dropout_p=dropout_p, softmax_scale=scale)
    out = out.transpose(1, 2)
    return out if rank == 4 else out.reshape(*lead, *out.shape[-3:]) if rank > 4 else out.reshape(out.shape[-rank:])
