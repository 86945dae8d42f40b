# SPDX-License-Identifier: Apache-2.0
"""What the drop-in modules share."""

from . import torch as door

torch = door.torch


def contiguous(*tensors):
    """As the originals do: a tensor whose last dimension is strided is laid out anew."""
    return [t if t is None or t.stride(-1) == 1 else t.contiguous() for t in tensors]


def window(size):
    """A pair of integers; the originals also take a tensor of two."""
    return tuple(int(side) if isinstance(side, torch.Tensor) else side for side in size)


def even(q, k, v, softmax_scale):
    """On a GPU, head dims that are no multiple of 8 get columns of zeros, as in the original. Also the scale of the
    head_dim that was, and what takes the columns away from the output."""
    d, dv = q.shape[-1], v.shape[-1]
    if not q.is_cuda or (d % 8 == 0 and dv % 8 == 0):
        return q, k, v, softmax_scale, lambda out: out
    wider = lambda tensor: torch.nn.functional.pad(tensor, (0, -tensor.shape[-1] % 8))
    scale = d**-0.5 if softmax_scale is None else softmax_scale
    return wider(q), wider(k), wider(v), scale, lambda out: out[..., :dv]


def refuse(function, **arguments):
    """Raises for the first argument that is given and that no kernel serves."""
    for name, value in arguments.items():
        if value is not None:
            raise NotImplementedError(f"{function}: {name} is not supported yet; nearest: {name}=None")


def refuse_function(function, nearest):
    raise NotImplementedError(f"{function} is not supported yet; nearest: {nearest}")


def split_packed(qkv, heads_q=None):
    """q, k, v of (..., 3, heads, head_dim), or of (..., heads_q + 2 heads_kv, head_dim) where heads_q is said."""
    if heads_q is None:
        if qkv.dim() < 3 or qkv.shape[-3] != 3:
            raise ValueError(f"qkv of shape {tuple(qkv.shape)} must be (..., 3, heads, head_dim)")
        return qkv.unbind(-3)
    rest = qkv.shape[-2] - heads_q
    if rest < 2 or rest % 2:
        raise ValueError(f"num_heads_q = {heads_q} leaves {rest} heads for k and v in qkv of shape {tuple(qkv.shape)}")
    return qkv.split([heads_q, rest // 2, rest // 2], dim=-2)


def split_kv(kv):
    if kv.dim() < 3 or kv.shape[-3] != 2:
        raise ValueError(f"kv of shape {tuple(kv.shape)} must be (..., 2, heads_kv, head_dim)")
    return kv.unbind(-3)
