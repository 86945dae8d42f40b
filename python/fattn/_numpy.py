# SPDX-License-Identifier: Apache-2.0
"""Attention on host arrays: NumPy's, and any other that speaks DLPack or the buffer protocol."""

import numpy as np

from . import _core
from . import _options as o

_CODES = {"float64": o.FP64, "float32": o.FP32, "bfloat16": o.BF16, "float16": o.FP16}
_VIEW_NAMES = {"float64": "float64", "float32": "float32", "float16": "float16", "bfloat16": "bfloat16",
               "int32": "int32", "int64": "int64"}
_ALIGNMENT = 256
_MOST_THREADS = 1 << 16


class _Array:
    """Address, shape, strides in elements and dtype of an array that someone else keeps alive."""

    __slots__ = ("owner", "address", "shape", "strides", "dtype")

    def __init__(self, name, array):
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{name} is a masked array, whose mask says nothing here; nearest: {name}.filled(), or a bias")
        if isinstance(array, np.ndarray):
            if not array.dtype.isnative:
                raise TypeError(f"{name} has byte order {array.dtype.byteorder!r}; nearest: the machine's own")
            self.owner, self.dtype = array, array.dtype.name
            self.address, self.shape = array.ctypes.data, array.shape
            size = array.itemsize
            if any(stride % size for stride in array.strides):
                raise ValueError(f"{name} has strides {array.strides} that are not multiples of its element's {size} bytes")
            self.strides = tuple(stride // size for stride in array.strides)
            return
        if not hasattr(array, "__dlpack__") and not _is_buffer(array):
            raise TypeError(f"{name} is a {type(array).__name__}; nearest: a NumPy array, or one that speaks DLPack")
        view = _core.View(array)
        self.owner, self.dtype = view, view.dtype
        self.address, self.shape, self.strides = view.address, view.shape, view.strides


def _is_buffer(array):
    try:
        memoryview(array)
    except TypeError:
        return False
    return True


def _code(name, array):
    code = _CODES.get(array.dtype)
    if code is None:
        raise TypeError(f"{name} has dtype {array.dtype}; nearest: float32, bfloat16 or float16")
    return code


def _numpy_dtype(name):
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError("NumPy has no bfloat16 of its own; nearest: install the package ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def _check_layout(name, array):
    last = array.strides[-1] if array.shape and array.shape[-1] > 1 else 1
    if 0 in array.shape or (last == 0 and name == "dout"):
        return
    if last != 1:
        raise ValueError(f"{name} has stride {last} in its last dimension; nearest: 1, as numpy.ascontiguousarray({name}) "
                         "has it")
    if any(stride < 0 < extent - 1 for stride, extent in zip(array.strides, array.shape)):
        raise ValueError(f"{name} has negative strides, {tuple(array.strides)}; nearest: numpy.ascontiguousarray({name})")
    if isinstance(array.owner, np.ndarray) and not array.owner.flags.aligned:
        raise ValueError(f"{name} begins inside an element of {array.dtype}; nearest: {name}.copy()")


def _operands(**arrays):
    """q, k, v (and o, dout) as _Array, all of one dtype."""
    out = {name: _Array(name, array) for name, array in arrays.items()}
    first = out["q"]
    _code("q", first)
    for name, array in out.items():
        if array.dtype != first.dtype:
            raise TypeError(f"{name} has dtype {array.dtype} and q has {first.dtype}; nearest: {first.dtype}")
        _check_layout(name, array)
    return out


def _side(name, array, dtype, shape=None):
    """A small contiguous array of one dtype. None stays None."""
    if array is None:
        return None
    given = _Array(name, array)
    if given.dtype != dtype:
        raise TypeError(f"{name} has dtype {given.dtype}; nearest: {dtype}")
    inside, contiguous = 1, True
    for extent, stride in zip(reversed(given.shape), reversed(given.strides)):
        contiguous &= extent <= 1 or stride == inside
        inside *= extent
    if not contiguous and inside > 0:
        raise ValueError(f"{name} is not contiguous; nearest: numpy.ascontiguousarray({name})")
    if shape is not None and tuple(given.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(given.shape)}; nearest: {tuple(shape)}")
    return given


def _address(array):
    return 0 if array is None else array.address


def _aligned(shape, dtype, fill=None):
    """An array that begins at a multiple of what any kernel may ask for."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = (np.empty if fill is None else np.zeros)(count + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + count].view(dtype).reshape(shape)


class _Call:
    """One problem on host arrays: the arrays, what is optional, and the plan."""

    def __init__(self, arrays, lengths, extras, options, threads):
        threads = o.integer("threads", threads)
        if not 0 <= threads <= _MOST_THREADS:
            raise ValueError(f"threads = {threads} must be in [0, {_MOST_THREADS}], 0 is all of the machine; nearest: 0")
        q = arrays["q"]
        self.arrays, self.extras, self.options, self.threads = arrays, dict(extras), options, threads
        self.dtype = q.dtype
        packed = lengths is not None
        self.batch, self.longest_q, self.longest_k = lengths if packed else (0, 0, 0)
        rank = 3 if packed else 4
        for name in ("q", "k", "v"):
            if len(arrays[name].shape) != rank:
                shapes = "(total, heads, head_dim)" if packed else "(batch, seqlen, heads, head_dim)"
                raise ValueError(f"{name} of shape {tuple(arrays[name].shape)} must be {shapes}")
        self.batches = self.batch if packed else q.shape[0]
        heads = q.shape[-2]
        self.out_shape = (*q.shape[:-1], arrays["v"].shape[-1])
        self.lse_shape = (heads, q.shape[0]) if packed else (q.shape[0], heads, q.shape[1])
        flags = 0
        side = {}
        for name, bit in (("seqused_q", o.SEQUSED_Q), ("seqused_k", o.SEQUSED_K), ("prefix", o.PREFIX)):
            side[name] = _side(name, extras.get(name), "int32", (self.batches,))
            flags |= bit if side[name] else 0
        side["sinks"] = _side("sinks", extras.get("sinks"), "float32", (heads,))
        flags |= o.SINKS if side["sinks"] else 0
        side["alibi_slopes"] = _side("alibi_slopes", extras.get("alibi_slopes"), "float32")
        if side["alibi_slopes"]:
            shape = tuple(side["alibi_slopes"].shape)
            if shape not in ((heads,), (self.batches, heads)):
                raise ValueError(f"alibi_slopes has shape {shape}; nearest: {(heads,)} or {(self.batches, heads)}")
            flags |= o.ALIBI_HEAD if len(shape) == 1 else o.ALIBI_BATCH
        for name, of in (("document_q", q), ("document_k", arrays["k"])):
            side[name] = _side(name, extras.get(name), "int32", of.shape[:-2])
        if (side["document_q"] is None) != (side["document_k"] is None):
            raise ValueError("document_q and document_k go together; nearest: both")
        flags |= o.DOCUMENTS if side["document_q"] else 0
        for name in ("cu_seqlens_q", "cu_seqlens_k"):
            side[name] = _side(name, extras.get(name), "int32", (self.batch + 1,)) if packed else None
        bias = extras.get("bias")
        side["bias"] = None
        if bias is not None:
            kind = _Array("bias", bias).dtype
            if kind not in _CODES:
                raise TypeError(f"bias has dtype {kind}; nearest: float32")
            side["bias"] = _side("bias", bias, kind)
        for name in ("dropout_seed", "dropout_offset"):
            side[name] = _side(name, extras.get(name), "uint64", (1,))
        self.flags, self.side = flags, side

    def plan(self, flags, dout=None):
        q, k, v = (self.arrays[name] for name in "qkv")
        bias = self.side["bias"]
        return _core.plan(
            dout is not None, _code("q", q), -1, self.threads, self.options,
            q.address, q.shape, q.strides, k.address, k.shape, k.strides, v.address, v.shape, v.strides,
            _address(dout), dout.shape if dout else None, dout.strides if dout else None,
            self.batch, self.longest_q, self.longest_k, self.flags | flags,
            None if bias is None else tuple(bias.shape), 0 if bias is None else _CODES[bias.dtype])

    def run(self, plan, out, lse, backward=(None,) * 7, max_logit=None):
        count = plan.workspace_bytes
        workspace = _aligned((count,), np.uint8, fill=0) if count else None
        data = lambda array: 0 if array is None else array.ctypes.data
        names = ("cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "bias", "alibi_slopes", "sinks", "document_q",
                 "document_k", "prefix", "dropout_seed", "dropout_offset")
        plan.run(0, data(workspace), count, *(self.arrays[name].address for name in "qkv"), _address(out), _address(lse),
                 data(max_logit), *(_address(self.side[name]) for name in names), *map(_address, backward))


def _lengths(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
    if cu_seqlens_q is None or cu_seqlens_k is None:
        raise ValueError("cu_seqlens_q and cu_seqlens_k are needed; nearest: fattn.attention for dense arrays")
    shape = tuple(np.shape(cu_seqlens_q))
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"cu_seqlens_q has shape {shape}; nearest: (batch + 1,) with batch at least 1")
    return shape[0] - 1, o.integer("max_seqlen_q", max_seqlen_q), o.integer("max_seqlen_k", max_seqlen_k)


def _forward(call, return_lse, return_max_logit):
    dtype = _numpy_dtype(call.dtype)
    plan = call.plan((o.LSE if return_lse else 0) | (o.MAX_LOGIT if return_max_logit else 0))
    if plan is None:  # no query row
        out, lse = np.zeros(call.out_shape, dtype), np.full(call.lse_shape, -np.inf, np.float32)
        largest = np.full(call.lse_shape[-2], -np.inf, np.float32)
    else:
        out = _aligned(call.out_shape, dtype)
        lse = _aligned(call.lse_shape, np.float32) if return_lse else None
        largest = _aligned(call.lse_shape[-2 if len(call.lse_shape) == 3 else 0 :][:1], np.float32) if return_max_logit else None
        call.run(plan, _Array("o", out), None if lse is None else _Array("lse", lse), max_logit=largest)
    results = (out,) + ((lse,) if return_lse else ()) + ((largest,) if return_max_logit else ())
    return results if len(results) > 1 else out


def attention(q, k, v, *, causal=False, window=(-1, -1), softmax_scale=None, softcap=0.0, chunk=0, causal_top_left=False,
              bias=None, alibi_slopes=None, sinks=None, seqused_q=None, seqused_k=None, document_q=None, document_k=None,
              prefix=None, deterministic=False, batch_invariant=False, return_lse=False, return_max_logit=False,
              threads=0, kernel=""):
    """Exact attention of (batch, seqlen, heads, head_dim) arrays on the CPU; docs/python.md has every argument."""
    options = o.options(causal, causal_top_left, *o.two(window), chunk, softmax_scale, softcap, 0.0, deterministic,
                        batch_invariant, kernel)
    extras = dict(bias=bias, alibi_slopes=alibi_slopes, sinks=sinks, seqused_q=seqused_q, seqused_k=seqused_k,
                  document_q=document_q, document_k=document_k, prefix=prefix)
    return _forward(_Call(_operands(q=q, k=k, v=v), None, extras, options, threads), return_lse, return_max_logit)


def attention_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *, causal=False, window=(-1, -1),
                     softmax_scale=None, softcap=0.0, chunk=0, causal_top_left=False, bias=None, alibi_slopes=None,
                     sinks=None, seqused_q=None, seqused_k=None, document_q=None, document_k=None, prefix=None,
                     deterministic=False, batch_invariant=False, return_lse=False, return_max_logit=False, threads=0,
                     kernel=""):
    """The same for packed sequences: arrays (total, heads, head_dim), int32 cu_seqlens of batch + 1 entries."""
    options = o.options(causal, causal_top_left, *o.two(window), chunk, softmax_scale, softcap, 0.0, deterministic,
                        batch_invariant, kernel)
    extras = dict(bias=bias, alibi_slopes=alibi_slopes, sinks=sinks, seqused_q=seqused_q, seqused_k=seqused_k,
                  document_q=document_q, document_k=document_k, prefix=prefix, cu_seqlens_q=cu_seqlens_q,
                  cu_seqlens_k=cu_seqlens_k)
    lengths = _lengths(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    return _forward(_Call(_operands(q=q, k=k, v=v), lengths, extras, options, threads), return_lse, return_max_logit)


def attention_backward(dout, q, k, v, out, lse, *, dlse=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None,
                       max_seqlen_k=None, causal=False, window=(-1, -1), softmax_scale=None, softcap=0.0, chunk=0,
                       causal_top_left=False, bias=None, alibi_slopes=None, sinks=None, seqused_q=None, seqused_k=None,
                       document_q=None, document_k=None, prefix=None, deterministic=False, batch_invariant=False,
                       return_dbias=False, return_dsink=False, threads=0, kernel=""):
    """dq, dk, dv (then dbias and dsink where asked) from the saved `out` and `lse` of a forward with the same options."""
    options = o.options(causal, causal_top_left, *o.two(window), chunk, softmax_scale, softcap, 0.0, deterministic,
                        batch_invariant, kernel)
    arrays = _operands(q=q, k=k, v=v, dout=dout, out=out)
    lengths = None
    if cu_seqlens_q is not None or cu_seqlens_k is not None:
        lengths = _lengths(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    extras = dict(bias=bias, alibi_slopes=alibi_slopes, sinks=sinks, seqused_q=seqused_q, seqused_k=seqused_k,
                  document_q=document_q, document_k=document_k, prefix=prefix, cu_seqlens_q=cu_seqlens_q,
                  cu_seqlens_k=cu_seqlens_k)
    call = _Call(arrays, lengths, extras, options, threads)
    saved = _side("lse", lse, "float32", call.lse_shape)
    if saved is None:
        raise TypeError("lse is None; nearest: what a forward with return_lse=True returned")
    written = _side("out", out, call.dtype, call.out_shape)
    given = _side("dlse", dlse, "float32", call.lse_shape)
    dtype = _numpy_dtype(call.dtype)
    if return_dbias and bias is None:
        raise ValueError("return_dbias needs a bias; nearest: return_dbias=False")
    if return_dsink and sinks is None:
        raise ValueError("return_dsink needs sinks; nearest: return_dsink=False")
    flags = (o.DLSE if given else 0) | (o.DBIAS if return_dbias else 0) | (o.DSINK if return_dsink else 0)
    plan = call.plan(flags, arrays["dout"])
    make = np.zeros if plan is None else _aligned  # None: no query row
    grads = [make(arrays[name].shape, dtype) for name in "qkv"]
    dbias = make(tuple(call.side["bias"].shape), np.float32) if return_dbias else None
    dsink = make(tuple(call.side["sinks"].shape), np.float32) if return_dsink else None
    if plan is not None:
        outputs = [None if grad is None else _Array("gradient", grad) for grad in (*grads, dbias, dsink)]
        call.run(plan, written, saved, backward=(arrays["dout"], given, *outputs))
    return tuple(grads) + ((dbias,) if return_dbias else ()) + ((dsink,) if return_dsink else ())


def attention_map(q, k, *, lse=None, causal=False, window=(-1, -1), softmax_scale=None, softcap=0.0):
    """The probabilities of one head, (seqlen_q, seqlen_k) in float64, from q (seqlen_q, head_dim), k (seqlen_k, head_dim).

    Made plainly, for looking at: it needs memory for all pairs, which attention() never does. With `lse`, the weights
    are those of that forward, else rows are normalised here."""
    q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
    if q.ndim != 2 or k.ndim != 2 or q.shape[1] != k.shape[1]:
        raise ValueError(f"q of shape {q.shape} and k of shape {k.shape} must be (seqlen, head_dim) of one head")
    left, right = o.two(window)
    scale = q.shape[1] ** -0.5 if softmax_scale is None else o.real("softmax_scale", softmax_scale)
    if not np.isfinite(scale):
        raise ValueError(f"softmax_scale = {scale} must be finite; nearest: 1")
    if lse is not None and np.shape(lse) != q.shape[:1]:
        raise ValueError(f"lse has shape {np.shape(lse)}; nearest: {q.shape[:1]}")
    scores = q @ k.T * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    diagonal = np.arange(q.shape[0])[:, None] + k.shape[0] - q.shape[0]
    key = np.arange(k.shape[0])[None, :]
    visible = np.ones(scores.shape, bool)
    if causal:
        visible &= key <= diagonal
    if left >= 0:
        visible &= key >= diagonal - left
    if right >= 0:
        visible &= key <= diagonal + right
    scores = np.where(visible, scores, -np.inf)
    if lse is None:
        peak = np.max(scores, axis=1, initial=-np.inf, keepdims=True)
        peak = np.where(np.isfinite(peak), peak, 0.0)
        weights = np.exp(scores - peak)
        total = weights.sum(axis=1, keepdims=True)
        return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    lse = np.asarray(lse, np.float64).reshape(-1, 1)
    return np.where(visible & np.isfinite(lse), np.exp(scores - np.where(np.isfinite(lse), lse, 0.0)), 0.0)


def explain(problem, device="cpu", kernel=""):
    """Which kernel would serve the problem (a text, docs/api.md) on a device ("cpu", "cuda:0", "h100"), and why not the
    others."""
    return _core.explain(problem, device, kernel)


def kernels():
    """Every kernel row: (name, device, pass, compiled, by_name_only)."""
    return _core.kernels()


def devices():
    """The CPU, then every GPU: (kind, index, name)."""
    return _core.devices()
