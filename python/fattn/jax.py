# SPDX-License-Identifier: Apache-2.0
"""Attention on JAX arrays, CPU and CUDA, forward and backward. The only file here that imports jax.

    out = attention(q, k, v, causal=True)      # (batch, seqlen, heads, head_dim)

Works under jit, grad, vmap and shard_map (over batch and heads). Second derivatives are refused by JAX itself."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from . import _core
from . import _options as o

if _core.xla_handlers is None:
    raise ImportError("this build of fattn has no XLA handlers: install jaxlib, then build fattn again")
_PLATFORMS = set()
for _name, _platform, _capsule in _core.xla_handlers:
    jax.ffi.register_ffi_target(_name, _capsule, platform=_platform)
    _PLATFORMS.add(_platform)

__all__ = ["attention", "attention_varlen"]

_DTYPES = ("float64", "float32", "bfloat16", "float16")


class _Static(NamedTuple):
    """What a call says beside its arrays."""

    causal: bool
    causal_top_left: bool
    window_left: int
    window_right: int
    chunk: int
    softmax_scale: float | None
    softcap: float
    deterministic: bool
    batch_invariant: bool
    kernel: str
    max_seqlen_q: int
    max_seqlen_k: int


class _Arrays(NamedTuple):
    """The optional operands in the order of the handlers (python/src/xla.cpp, `Given`)."""

    cu_seqlens_q: jax.Array | None = None
    cu_seqlens_k: jax.Array | None = None
    seqused_q: jax.Array | None = None
    seqused_k: jax.Array | None = None
    bias: jax.Array | None = None
    alibi_slopes: jax.Array | None = None
    sinks: jax.Array | None = None


_DLSE = 1 << len(_Arrays._fields)


def _attributes(static, arrays, flags, given):
    for name, bit in (("seqused_q", o.SEQUSED_Q), ("seqused_k", o.SEQUSED_K), ("sinks", o.SINKS)):
        flags |= bit if getattr(arrays, name) is not None else 0
    if arrays.alibi_slopes is not None:
        flags |= o.ALIBI_HEAD if arrays.alibi_slopes.ndim == 1 else o.ALIBI_BATCH
    given |= sum(1 << i for i, array in enumerate(arrays) if array is not None)
    whole = {name: np.int64(getattr(static, name)) for name in (
        "causal", "causal_top_left", "window_left", "window_right", "chunk", "deterministic", "batch_invariant",
        "max_seqlen_q", "max_seqlen_k")}
    return dict(whole, scaled=np.int64(static.softmax_scale is not None), softmax_scale=np.float64(static.softmax_scale or 0),
                softcap=np.float64(static.softcap), kernel=static.kernel, flags=np.int64(flags), given=np.int64(given),
                bias_rank=np.int64(0 if arrays.bias is None else arrays.bias.ndim))


def _lse_shape(q):
    return (q.shape[1], q.shape[0]) if q.ndim == 3 else (q.shape[0], q.shape[2], q.shape[1])


def _result(shape, dtype, like):
    """What a handler returns: inside shard_map it varies over the same axes of the mesh as `like`."""
    kind = jax.typeof(like) if hasattr(jax, "typeof") else None
    if getattr(kind, "vma", None):
        return jax.ShapeDtypeStruct(shape, dtype, vma=kind.vma)
    if getattr(kind, "manual_axis_type", None):  # as newer versions call it
        sharding = jax.sharding.NamedSharding(kind.sharding.mesh, jax.sharding.PartitionSpec())
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding, manual_axis_type=kind.manual_axis_type)
    return jax.ShapeDtypeStruct(shape, dtype)


def _present(arrays):
    return [array for array in arrays if array is not None]


def _forward(static, q, k, v, arrays):
    shapes = (_result((*q.shape[:-1], v.shape[-1]), q.dtype, q), _result(_lse_shape(q), jnp.float32, q))
    if 0 in shapes[0].shape:
        return jnp.zeros(shapes[0].shape, q.dtype), jnp.full(shapes[1].shape, -jnp.inf, jnp.float32)
    call = jax.ffi.ffi_call("fattn_forward", shapes, vmap_method="broadcast_all")
    return tuple(call(q, k, v, *_present(arrays), **_attributes(static, arrays, o.LSE, 0)))


def _backward(static, q, k, v, out, lse, dout, dlse, arrays, need_dbias, need_dsink):
    shapes = [_result(array.shape, array.dtype, array) for array in (q, k, v)]
    if need_dbias:
        shapes.append(_result(arrays.bias.shape, jnp.float32, arrays.bias))
    if need_dsink:
        shapes.append(_result(arrays.sinks.shape, jnp.float32, arrays.sinks))
    if 0 in out.shape:
        return [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    flags = (o.DLSE if dlse is not None else 0) | (o.DBIAS if need_dbias else 0) | (o.DSINK if need_dsink else 0)
    call = jax.ffi.ffi_call("fattn_backward", tuple(shapes), vmap_method="broadcast_all")
    operands = [q, k, v, out, lse, dout, *([] if dlse is None else [dlse]), *_present(arrays)]
    return call(*operands, **_attributes(static, arrays, flags, 0 if dlse is None else _DLSE))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(static, q, k, v, arrays):
    return _forward(static, q, k, v, arrays)


def _attention_forward(static, q, k, v, arrays):
    value = lambda array: None if array is None else array.value
    plain = _Arrays(*map(value, arrays))
    perturbed = lambda array: array is not None and array.perturbed
    if perturbed(arrays.alibi_slopes):
        raise NotImplementedError("alibi_slopes requires a gradient, which no kernel computes; nearest: a bias")
    out, lse = _forward(static, q.value, k.value, v.value, plain)
    return (out, lse), (q.value, k.value, v.value, out, lse, plain, perturbed(arrays.bias), perturbed(arrays.sinks))


def _attention_backward(static, saved, gradients):
    q, k, v, out, lse, arrays, need_dbias, need_dsink = saved
    dout, dlse = gradients
    if isinstance(dout, SymbolicZero):
        dout = jnp.zeros(out.shape, out.dtype)
    if isinstance(dlse, SymbolicZero):
        dlse = None
    dq, dk, dv, *rest = _backward(static, q, k, v, out, lse, dout, dlse, arrays, need_dbias, need_dsink)
    dbias = rest.pop(0).astype(arrays.bias.dtype) if need_dbias else None
    dsink = rest.pop(0) if need_dsink else None
    return dq, dk, dv, _Arrays(bias=dbias, sinks=dsink)


_attention.defvjp(_attention_forward, _attention_backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention_in_shards(static, q, k, v, arrays):
    """The same where JAX has no symbolic zeros, in a shard_map without jit: every gradient that there could be is computed."""
    return _forward(static, q, k, v, arrays)


def _attention_in_shards_forward(static, q, k, v, arrays):
    out, lse = _forward(static, q, k, v, arrays)
    return (out, lse), (q, k, v, out, lse, arrays, arrays.bias is not None, arrays.sinks is not None)


_attention_in_shards.defvjp(_attention_in_shards_forward, _attention_backward)


def _varying(arrays):
    """Inside shard_map, what is the same on every device becomes an array of each device where another operand is one: so
    that JAX adds up the gradients that the devices find for it. Also whether there are such axes."""
    axes = [frozenset() if array is None else _axes(array) for array in arrays]
    every = frozenset().union(*axes)
    cast = getattr(jax.lax, "pcast", None)
    vary = (lambda x, axes: cast(x, axes, to="varying")) if cast is not None else getattr(jax.lax, "pvary", None)
    return [array if array is None or own == every else vary(array, tuple(every - own))
            for array, own in zip(arrays, axes)], bool(every)


def _axes(array):
    kind = jax.typeof(array) if hasattr(jax, "typeof") else None
    return getattr(kind, "vma", None) or getattr(getattr(kind, "manual_axis_type", None), "varying", None) or frozenset()


def _check_shapes(q, k, v, packed):
    """What is wrong is said when a function is traced, not when it runs."""
    same = [("v", v, 2, "k", k, 2, "heads"), ("v", v, 3, "k", k, 3, "total" if packed else "seqlen"),
            ("k", k, 1, "q", q, 1, "head_dim")]
    if not packed:
        same += [("k", k, 4, "q", q, 4, "batch"), ("v", v, 4, "q", q, 4, "batch")]
    for name, array, behind, of, other, behind_of, what in same:
        if array.shape[-behind] != other.shape[-behind_of]:
            raise ValueError(f"{name} of shape {array.shape} does not go with {of} of shape {other.shape}: {what} must be the "
                             f"same; nearest: {other.shape[-behind_of]}")
    for name, array in (("q", q), ("k", k), ("v", v)):
        if 0 in array.shape[-2:]:
            raise ValueError(f"{name} of shape {array.shape} has no heads or no columns; nearest: 1")
    if q.shape[-2] % k.shape[-2]:
        raise ValueError(f"heads_kv = {k.shape[-2]} must divide heads_q = {q.shape[-2]}; nearest: {q.shape[-2]}")


def _batch_of(cu_seqlens):
    for name, array in (("cu_seqlens_q", cu_seqlens[0]), ("cu_seqlens_k", cu_seqlens[1])):
        if array.ndim != 1 or array.shape[0] < 2:
            raise ValueError(f"{name} has shape {array.shape}; nearest: (batch + 1,) with batch at least 1")
    return cu_seqlens[0].shape[0] - 1


def _check(q, k, v, arrays, batch):
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"{name} has dtype {array.dtype.name}; nearest: bfloat16")
        if array.dtype != q.dtype:
            raise TypeError(f"{name} has dtype {array.dtype.name} and q has {q.dtype.name}; nearest: {q.dtype.name}")
    heads = q.shape[-2]
    expected = dict(cu_seqlens_q=("int32", [(batch + 1,)]), cu_seqlens_k=("int32", [(batch + 1,)]),
                    seqused_q=("int32", [(batch,)]), seqused_k=("int32", [(batch,)]),
                    alibi_slopes=("float32", [(heads,), (batch, heads)]), sinks=("float32", [(heads,)]))
    for name, (dtype, shapes) in expected.items():
        array = getattr(arrays, name)
        if array is None:
            continue
        if array.dtype.name != dtype:
            raise TypeError(f"{name} has dtype {array.dtype.name}; nearest: {dtype}")
        if array.shape not in shapes:
            raise ValueError(f"{name} has shape {array.shape}; nearest: {' or '.join(map(str, shapes))}")
    if arrays.bias is not None and arrays.bias.dtype.name not in _DTYPES:
        raise TypeError(f"bias has dtype {arrays.bias.dtype.name}; nearest: float32")
    if arrays.bias is not None and arrays.bias.ndim > 4:
        raise ValueError(f"bias has {arrays.bias.ndim} dimensions; nearest: 4 (batch, heads_q, seqlen_q, seqlen_k)")


def _call(q, k, v, arrays, packed, lengths, causal, causal_top_left, window, chunk, softmax_scale, softcap, deterministic,
          batch_invariant, return_lse, kernel):
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array is None or isinstance(array, (list, tuple)):
            raise TypeError(f"{name} is a {type(array).__name__}; nearest: a jax.Array")
    q, k, v = (jnp.asarray(array) for array in (q, k, v))
    arrays = _Arrays(*(None if array is None else jnp.asarray(array) for array in arrays))
    rank = 3 if packed else 4
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.ndim != rank:
            shapes = "(total, heads, head_dim)" if packed else "(batch, seqlen, heads, head_dim)"
            raise ValueError(f"{name} of shape {array.shape} must be {shapes}")
    _check(q, k, v, arrays, _batch_of(arrays[:2]) if packed else q.shape[0])
    _check_shapes(q, k, v, packed)
    left, right = o.two(window)
    # Refuses values of a wrong type by name, as the other doors do.
    o.options(causal, causal_top_left, left, right, chunk, softmax_scale, softcap, 0.0, deterministic, batch_invariant, kernel)
    static = _Static(bool(causal), bool(causal_top_left), int(left), int(right), int(chunk),
                     None if softmax_scale is None else float(softmax_scale), float(softcap), bool(deterministic),
                     bool(batch_invariant), kernel, max(1, o.integer("max_seqlen_q", lengths[0])), o.integer("max_seqlen_k", lengths[1]))
    (q, k, v, *arrays), in_shards = _varying((q, k, v, *arrays))
    arrays = _Arrays(*arrays)
    attend = _attention_in_shards if in_shards and arrays.alibi_slopes is None else _attention
    out, lse = attend(static, q, k, v, arrays)
    return (out, lse) if return_lse else out


def attention(q, k, v, *, causal=False, window=(-1, -1), softmax_scale=None, softcap=0.0, chunk=0, causal_top_left=False,
              bias=None, alibi_slopes=None, sinks=None, seqused_q=None, seqused_k=None, deterministic=False,
              batch_invariant=False, return_lse=False, kernel=""):
    """Exact attention of q (batch, seqlen_q, heads_q, head_dim), k and v (batch, seqlen_k, heads_kv, head_dim).

    Returns o, or (o, lse) with lse fp32 (batch, heads_q, seqlen_q). Gradients flow to q, k, v, bias and sinks, from o
    and from lse. docs/python.md has every argument."""
    arrays = (None, None, seqused_q, seqused_k, bias, alibi_slopes, sinks)
    return _call(q, k, v, arrays, False, (0, 0), causal, causal_top_left, window, chunk, softmax_scale, softcap,
                 deterministic, batch_invariant, return_lse, kernel)


def attention_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *, causal=False, window=(-1, -1),
                     softmax_scale=None, softcap=0.0, chunk=0, causal_top_left=False, bias=None, alibi_slopes=None,
                     sinks=None, seqused_q=None, seqused_k=None, deterministic=False, batch_invariant=False,
                     return_lse=False, kernel=""):
    """The same for packed sequences: q (total_q, heads_q, head_dim), int32 cu_seqlens of batch + 1 entries; max_seqlen
    are Python integers, as shapes are. lse is (heads_q, total_q)."""
    if cu_seqlens_q is None or cu_seqlens_k is None:
        raise ValueError("cu_seqlens_q and cu_seqlens_k are needed; nearest: attention for dense arrays")
    arrays = (cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, bias, alibi_slopes, sinks)
    return _call(q, k, v, arrays, True, (max_seqlen_q, max_seqlen_k), causal, causal_top_left, window, chunk,
                 softmax_scale, softcap, deterministic, batch_invariant, return_lse, kernel)
