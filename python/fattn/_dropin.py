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


def _rotate(x, cos, sin, positions, interleaved):
    """The first columns of x (.., heads, head_dim) turned by the angles of their positions (..)."""
    positions = positions.clamp(max=cos.shape[0] - 1)
    cos, sin = cos[positions][..., None, :].float(), sin[positions][..., None, :].float()
    turned, rest = x[..., : 2 * cos.shape[-1]].float(), x[..., 2 * cos.shape[-1] :]
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, dim=-1)
    pair = a * cos - b * sin, b * cos + a * sin
    turned = torch.stack(pair, dim=-1).flatten(-2) if interleaved else torch.cat(pair, dim=-1)
    return torch.cat([turned.to(x.dtype), rest], dim=-1)


def _places(tensor, cu_seqlens):
    """The sequence of each row of (batch, seqlen, ..) or packed (total, ..), and how far in it the row is."""
    if cu_seqlens is None:
        rows = torch.arange(tensor.shape[0], device=tensor.device)[:, None]
        return rows, torch.arange(tensor.shape[1], device=tensor.device)[None]
    ends, row = cu_seqlens[1:].long(), torch.arange(tensor.shape[0], device=tensor.device)
    sequence = torch.searchsorted(ends, row, right=True).clamp(max=len(ends) - 1)
    return sequence, row - cu_seqlens.long()[sequence]


def _append(q, k_cache, v_cache, k, v, used, rotary, cu_seqlens_q, cu_seqlens_new, together):
    """Writes k and v behind the keys that are there. Returns q, turned as k is: a row by its own position, or, where all
    rows see the same keys, all by the first; and how many keys there are now."""
    if k is None or v is None:
        raise ValueError("k and v go together; nearest: both")
    if used is None:
        raise ValueError("k and v need cache_seqlens, behind which they are written")
    room, starts = k_cache.shape[1], used.long()
    now = used + (k.shape[1] if cu_seqlens_new is None else cu_seqlens_new.diff())
    if not used.is_cuda and int(now.max()) > room:  # what is on a GPU is not known here
        raise ValueError(f"cache_seqlens and the new keys make {int(now.max())}, more than k_cache has, {room}; nearest: "
                         f"{room}")
    sequence, ahead = _places(k, cu_seqlens_new)
    cos, sin, interleaved, begins = rotary
    if cos is not None:
        begins = starts if begins is None else begins.long()
        sequence_q, ahead_q = _places(q, cu_seqlens_q)
        q = _rotate(q, cos, sin, begins[sequence_q] + ahead_q * (0 if together else 1), interleaved)
        k = _rotate(k, cos, sin, begins[sequence] + ahead, interleaved)
    where = sequence, (starts[sequence] + ahead).clamp(max=room - 1)
    k_cache[where], v_cache[where] = k, v
    return q, now


def with_cache(q, k_cache, v_cache, k, v, cache_seqlens, rotary, cu_seqlens_q, cu_seqlens_new, max_seqlen_q, **options):
    """o and lse of q over a cache (batch, seqlen, heads_kv, head_dim) of which cache_seqlens keys count, after k and v
    were appended to it in place. `rotary` is (cos, sin, interleaved, positions or None). For inference: no gradients."""
    with torch.no_grad():
        used = cache_seqlens
        if isinstance(used, int):
            used = torch.full((k_cache.shape[0],), used, dtype=torch.int32, device=k_cache.device)
        (q,) = contiguous(q)
        if k is not None or v is not None:
            together = not options["causal"] and tuple(options["window"]) == (-1, -1)
            q, used = _append(q, k_cache, v_cache, k, v, used, rotary, cu_seqlens_q, cu_seqlens_new, together)
        elif rotary[0] is not None:
            raise ValueError("rotary_cos without k turns nothing; nearest: rotary_cos=None")
        if cu_seqlens_q is None:
            return door.attention(q, k_cache, v_cache, seqused_k=used, return_lse=True, **options)
        return door.attention_varlen(q, k_cache, v_cache, cu_seqlens_q, None, max_seqlen_q, 0, seqused_k=used,
                                     return_lse=True, **options)
