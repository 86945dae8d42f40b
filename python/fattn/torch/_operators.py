# SPDX-License-Identifier: Apache-2.0
"""torch.ops.fattn.forward and .backward, for whoever wants to see them (compilers, modes, subclasses), and the same
derivative without the dispatcher, for calls that only autograd watches."""

import torch

from . import _vmap
from ._run import ALIBI, BIAS, SINKS, TENSORS, backward, forward

# The optional arguments that both operators share, in the order of NAMES, then the scalars.
_SHARED = (
    "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seqused_q, Tensor? seqused_k, Tensor? bias, "
    "Tensor? alibi_slopes, Tensor? sinks, Tensor? document_q, Tensor? document_k, Tensor? prefix, "
    "Tensor? dropout_seed, Tensor? dropout_offset, SymInt max_seqlen_q, SymInt max_seqlen_k, bool causal, "
    "bool causal_top_left, SymInt window_left, SymInt window_right, SymInt chunk, float? softmax_scale, float softcap, "
    "float dropout_p, bool deterministic, bool batch_invariant, str kernel"
)
NO_TENSORS = (None,) * TENSORS
_LIBRARY = torch.library.Library("fattn", "DEF")
_LIBRARY.define(f"forward(Tensor q, Tensor k, Tensor v, {_SHARED}) -> (Tensor o, Tensor lse)")
_LIBRARY.define(
    "backward(Tensor dout, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, bool need_dbias, "
    f"bool need_dsink, {_SHARED}) -> (Tensor dq, Tensor dk, Tensor dv, Tensor dbias, Tensor dsink)"
)


def _forward_op(q, k, v, *shared):
    return forward(q, k, v, shared[:TENSORS], shared[TENSORS:], keep=False)


def _backward_op(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, *shared):
    grads = backward(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, shared[:TENSORS], shared[TENSORS:], keep=False)
    return tuple(q.new_empty((0,), dtype=torch.float32) if grad is None else grad for grad in grads)


for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("forward", _forward_op, _key)
    _LIBRARY.impl("backward", _backward_op, _key)


def _lse_shape(q):
    return (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])


@torch.library.register_fake("fattn::forward", lib=_LIBRARY)
def _(q, k, v, *shared):
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(_lse_shape(q), dtype=torch.float32)


@torch.library.register_fake("fattn::backward", lib=_LIBRARY)
def _(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, *shared):
    bias = shared[BIAS]
    return (
        *(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v)),
        q.new_empty(bias.shape if need_dbias else (0,), dtype=torch.float32),
        q.new_empty((q.shape[-2],) if need_dsink else (0,), dtype=torch.float32),
    )


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    q, k, v, *shared = inputs
    out, lse = output
    _refuse_slopes(shared[ALIBI])
    ctx.save_for_backward(q, k, v, out, lse, *shared[:TENSORS])
    ctx.scalars = tuple(shared[TENSORS:])
    ctx.need_dbias = ctx.needs_input_grad[3 + BIAS]
    ctx.need_dsink = ctx.needs_input_grad[3 + SINKS]


def _refuse_slopes(slopes):
    if slopes is not None and slopes.requires_grad:
        raise NotImplementedError("alibi_slopes requires a gradient, which no kernel computes; nearest: a bias")


def _no_dout(out):
    """Where only lse was used."""
    return torch.zeros((1,) * out.dim(), dtype=out.dtype, device=out.device).expand(out.shape)


def _gradients(ctx, dout, dlse, operator=torch.ops.fattn.backward.default):
    q, k, v, out, lse, *tensors = ctx.saved_tensors
    grads = [None] * (3 + TENSORS + len(ctx.scalars))
    if dout is None and dlse is None:
        return tuple(grads)
    dout = _no_dout(out) if dout is None else dout
    dq, dk, dv, dbias, dsink = operator(dout, dlse, q, k, v, out, lse, ctx.need_dbias, ctx.need_dsink, *tensors, *ctx.scalars)
    grads[:3] = dq, dk, dv
    if ctx.need_dbias:
        grads[3 + BIAS] = dbias.to(tensors[BIAS].dtype)
    if ctx.need_dsink:
        grads[3 + SINKS] = dsink
    return tuple(grads)


def _refuse_double(ctx, *grads):
    raise NotImplementedError("double backward: fattn computes first derivatives only; nearest: "
                              "torch.nn.functional.scaled_dot_product_attention with SDPBackend.MATH")


torch.library.register_autograd("fattn::forward", _gradients, setup_context=_save, lib=_LIBRARY)
torch.library.register_autograd("fattn::backward", _refuse_double, lib=_LIBRARY)


@torch.library.register_vmap("fattn::forward", lib=_LIBRARY)
def _(info, in_dims, *arguments):
    return _vmap.map_forward(torch.ops.fattn.forward.default, info, in_dims, *arguments)


@torch.library.register_vmap("fattn::backward", lib=_LIBRARY)
def _(info, in_dims, *arguments):
    return _vmap.map_backward(torch.ops.fattn.backward.default, info, in_dims, *arguments)


class _Eager(torch.autograd.Function):
    """`tensors` holds bias and sinks once more: an argument of a Function costs more than an element of a tuple."""

    @staticmethod
    def forward(ctx, q, k, v, bias, sinks, tensors, scalars, return_lse):
        out, lse = forward(q, k, v, tensors, scalars)
        if tensors is None:
            ctx.save_for_backward(q, k, v, out, lse)
        else:
            _refuse_slopes(tensors[ALIBI])
            ctx.save_for_backward(q, k, v, out, lse, *tensors)
        ctx.scalars = scalars
        if not return_lse:
            return out
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx, dout, dlse=None):
        q, k, v, out, lse, *tensors = ctx.saved_tensors
        if dout is None and dlse is None:
            return (None,) * 8
        if dout is None:
            dout = _no_dout(out)
        need_dbias, need_dsink = ctx.needs_input_grad[3:5]
        if torch.is_grad_enabled():
            # Under create_graph the operator is recorded, so that a second derivative is refused and not silently zero.
            grads = torch.ops.fattn.backward.default(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink,
                                                     *(tensors or NO_TENSORS), *ctx.scalars)
        else:
            grads = backward(dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, tuple(tensors) or None, ctx.scalars)
        dq, dk, dv, dbias, dsink = grads
        dbias = dbias.to(tensors[BIAS].dtype) if need_dbias else None
        return dq, dk, dv, dbias, dsink if need_dsink else None, None, None, None


def _refuse_forward_mode(ctx, *tangents):
    raise NotImplementedError("forward-mode derivatives (jvp, jacfwd, dual tensors): fattn computes reverse-mode ones only; "
                              "nearest: torch.nn.functional.scaled_dot_product_attention with SDPBackend.MATH")


class _Transformed(torch.autograd.Function):
    """Under torch.func's transforms and dual tensors, of which an operator's registrations know nothing."""

    setup_context = staticmethod(_save)
    jvp = staticmethod(_refuse_forward_mode)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return _vmap.map_forward(_Transformed.apply, info, in_dims, *arguments)

    @staticmethod
    def forward(*arguments):
        return torch.ops.fattn.forward.default(*arguments)

    @staticmethod
    def backward(ctx, dout, dlse):
        return _gradients(ctx, dout, dlse, _TransformedBackward.apply)


class _TransformedBackward(torch.autograd.Function):
    backward = staticmethod(_refuse_double)
    jvp = staticmethod(_refuse_forward_mode)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return _vmap.map_backward(_TransformedBackward.apply, info, in_dims, *arguments)

    @staticmethod
    def forward(*arguments):
        return torch.ops.fattn.backward.default(*arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass


transformed = _Transformed.apply

# Function.apply is a wrapper for functorch's transforms, which take the operator; it costs as much as what it wraps.
eager = super(torch.autograd.Function, _Eager).apply
