# SPDX-License-Identifier: Apache-2.0
"""The public functions. A call that nothing but autograd watches goes the short way (_run.py), others through the
operator; what the short way needs to ask first costs it as much as the questions themselves, so they are few."""

import torch
from torch.autograd import forward_ad

from .. import _options as o
from ._operators import NO_TENSORS, eager, transformed
from ._run import BIAS, NAMES, SINKS, forward, refuse_layout

_UNBOUNDED = (-1, -1)
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", None)
_function_modes = getattr(torch._C, "_len_torch_function_stack", None)
_functorch_level = getattr(getattr(torch._C, "_functorch", None), "maybe_current_level", None)
_tracing = getattr(torch._C, "_get_tracing_state", None)
_SHORT_CUT = None not in (_dispatch_modes, _function_modes, _functorch_level, _tracing)
_any_autocast = getattr(torch._C, "_is_any_autocast_enabled", lambda: True)


def _watched(q, k, v):
    """Does a compiler, a tracer, a mode, a transform or a subclass want to see the operator? If not, the dispatcher,
    which costs more than the rest of a call, is left out."""
    if not _SHORT_CUT or torch.compiler.is_compiling():
        return True
    if type(q) not in _PLAIN or type(k) not in _PLAIN or type(v) not in _PLAIN:
        return True
    return (_dispatch_modes() > 0 or _function_modes() > 0 or _in_transform() or _tracing() is not None or q.is_meta
            or q.is_neg() or k.is_neg() or v.is_neg())


def _in_transform():
    """Of torch.func, or among dual tensors."""
    return forward_ad._current_level >= 0 or (_functorch_level is not None and _functorch_level() is not None)


def _recorded(q, k, v, tensors):
    if not torch.is_grad_enabled():
        return False
    if q.requires_grad or k.requires_grad or v.requires_grad:
        return True
    return tensors is not None and any(isinstance(t, torch.Tensor) and t.requires_grad for t in tensors)


def require_tensors(**values):
    for name, value in values.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; nearest: a torch.Tensor")


def _require_operands(q, k, v, tensors):
    """What the compiled part checks in the short way; tensors without data never reach it."""
    require_tensors(q=q, k=k, v=v)
    if tensors is not None:
        require_tensors(**{name: tensor for name, tensor in zip(NAMES, tensors) if tensor is not None})
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not tensor.is_meta:
            refuse_layout(name, tensor)
        if tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device} and q is on {q.device}; nearest: {q.device}")


def _cast_for_autocast(q, k, v):
    require_tensors(q=q, k=k, v=v)
    kind = q.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return q, k, v
    dtype = torch.get_autocast_dtype(kind)
    return (t.to(dtype) if t.dtype is torch.float32 else t for t in (q, k, v))


def _seeded(tensors, generator, q):
    require_tensors(q=q)
    words = torch.randint(0, 1 << 62, (2,), dtype=torch.int64, device=q.device, generator=generator)
    return *(NO_TENSORS if tensors is None else tensors)[:-2], words[:1], words[1:]


def _call(q, k, v, tensors, lengths, causal, causal_top_left, window, chunk, softmax_scale, softcap, dropout_p,
          generator, deterministic, batch_invariant, return_lse, kernel):
    if _any_autocast():
        q, k, v = _cast_for_autocast(q, k, v)
    if dropout_p:
        dropout_p = o.real("dropout_p", dropout_p)
        tensors = _seeded(tensors, generator, q)
    left, right = _UNBOUNDED if window is _UNBOUNDED else o.two(window)
    if softmax_scale is not None and type(softmax_scale) is not float:
        softmax_scale = o.real("softmax_scale", softmax_scale)
    if torch.are_deterministic_algorithms_enabled():
        deterministic = True
    scalars = (*lengths, causal, causal_top_left, left, right, chunk, softmax_scale, softcap, dropout_p, deterministic,
               batch_invariant, kernel)
    if _watched(q, k, v):
        _require_operands(q, k, v, tensors)
        operator = torch.ops.fattn.forward.default
        if not torch.compiler.is_compiling() and _in_transform():
            operator = transformed
        out, lse = operator(q, k, v, *(tensors or NO_TENSORS), *scalars)
    elif _recorded(q, k, v, tensors):
        bias, sinks = (None, None) if tensors is None else (tensors[BIAS], tensors[SINKS])
        return eager(q, k, v, bias, sinks, tensors, scalars, return_lse)
    else:
        out, lse = forward(q, k, v, tensors, scalars, return_lse)
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
        tensors = None
    else:
        tensors = (None, None, seqused_q, seqused_k, bias, alibi_slopes, sinks, document_q, document_k, prefix, None, None)
    return _call(q, k, v, tensors, (0, 0), causal, causal_top_left, window, chunk, softmax_scale, softcap, dropout_p,
                 generator, deterministic, batch_invariant, return_lse, kernel)


def _length(name, value):
    if value.numel() != 1:
        raise ValueError(f"{name} has {value.numel()} elements; nearest: an integer, or a tensor of one element")
    return int(value.item())


def attention_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *, causal=False, window=_UNBOUNDED,
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
    tensors = (cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, bias, alibi_slopes, sinks, document_q, document_k, prefix,
               None, None)
    return _call(q, k, v, tensors, (max_seqlen_q, max_seqlen_k), causal, causal_top_left, window, chunk, softmax_scale,
                 softcap, dropout_p, generator, deterministic, batch_invariant, return_lse, kernel)
