# SPDX-License-Identifier: Apache-2.0
"""What the drop-in modules share."""

from . import torch as door

torch = door.torch


def contiguous(**tensors):
    """As the originals do: a tensor whose last dimension is strided is laid out anew."""
    door.require_tensors(**tensors)
    return [t if t.dim() == 0 or t.stride(-1) == 1 else t.contiguous() for t in tensors.values()]


def window(size):
    """A pair of integers; the originals also take a tensor of two."""
    return tuple(int(side) if isinstance(side, torch.Tensor) else side for side in size)


def even(q, k, v, softmax_scale):
    """On a GPU, head dims that are no multiple of 8 get columns of zeros, as in the original. Also the scale of the
    head_dim that was, and what takes the columns away from the output."""
    if not q.is_cuda or 0 in (q.dim(), v.dim()) or (q.shape[-1] % 8 == 0 and v.shape[-1] % 8 == 0):
        return q, k, v, softmax_scale, lambda out: out
    d, dv = q.shape[-1], v.shape[-1]
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
    door.require_tensors(qkv=qkv)
    if heads_q is None:
        if qkv.dim() < 3 or qkv.shape[-3] != 3:
            raise ValueError(f"qkv of shape {tuple(qkv.shape)} must be (..., 3, heads, head_dim)")
        return qkv.unbind(-3)
    rest = qkv.shape[-2] - heads_q
    if rest < 2 or rest % 2:
        raise ValueError(f"num_heads_q = {heads_q} leaves {rest} heads for k and v in qkv of shape {tuple(qkv.shape)}")
    return qkv.split([heads_q, rest // 2, rest // 2], dim=-2)


def split_kv(kv):
    door.require_tensors(kv=kv)
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


def _require_new(name, new, cache, cu_seqlens_new):
    """New keys go into a cache row by row: nothing is broadcast or cast on the way."""
    door.require_tensors(**{name: new})
    lead = cache.shape[:1] if cu_seqlens_new is None else ()
    wanted = (*lead, new.shape[len(lead)] if new.dim() > len(lead) else 1, *cache.shape[2:])
    if new.shape != wanted:
        raise ValueError(f"{name} has shape {tuple(new.shape)} and {name}_cache has {tuple(cache.shape)}; nearest: {wanted}")
    if new.dtype is not cache.dtype:
        raise TypeError(f"{name} has dtype {new.dtype} and {name}_cache has {cache.dtype}; nearest: {cache.dtype}")


def _append(q, k_cache, v_cache, k, v, used, rotary, cu_seqlens_q, cu_seqlens_new, together):
    """Writes k and v behind the keys that are there. Returns q, turned as k is: a row by its own position, or, where all
    rows see the same keys, all by the first; and how many keys there are now."""
    if k is None or v is None:
        raise ValueError("k and v go together; nearest: both")
    if used is None:
        raise ValueError("k and v need cache_seqlens, behind which they are written")
    _require_new("k", k, k_cache, cu_seqlens_new)
    _require_new("v", v, v_cache, cu_seqlens_new)
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


def _require_cache(q, k_cache, v_cache, used):
    (q,) = contiguous(q=q)
    door.require_tensors(k_cache=k_cache, v_cache=v_cache)
    if k_cache.dim() != 4 or v_cache.dim() != 4:
        raise ValueError(f"k_cache has {k_cache.dim()} and v_cache has {v_cache.dim()} dimensions; nearest: 4 (batch, seqlen, "
                         "heads_kv, head_dim)")
    if isinstance(used, torch.Tensor):
        if used.dtype is not torch.int32:
            raise TypeError(f"cache_seqlens has dtype {used.dtype}; nearest: torch.int32")
        if used.shape != k_cache.shape[:1]:
            raise ValueError(f"cache_seqlens has shape {tuple(used.shape)}; nearest: {tuple(k_cache.shape[:1])}")
    elif isinstance(used, int):
        if not 0 <= used <= k_cache.shape[1]:
            raise ValueError(f"cache_seqlens = {used} must be in [0, {k_cache.shape[1]}]; nearest: "
                             f"{min(max(used, 0), k_cache.shape[1])}")
    elif used is not None:
        raise TypeError(f"cache_seqlens is a {type(used).__name__}; nearest: an integer, or an int32 tensor (batch,)")
    return q


def with_cache(q, k_cache, v_cache, k, v, cache_seqlens, rotary, cu_seqlens_q, cu_seqlens_new, max_seqlen_q, **options):
    """o and lse of q over a cache (batch, seqlen, heads_kv, head_dim) of which cache_seqlens keys count, after k and v
    were appended to it in place. `rotary` is (cos, sin, interleaved, positions or None). For inference: no gradients."""
    with torch.no_grad():
        used = cache_seqlens
        q = _require_cache(q, k_cache, v_cache, used)
        if isinstance(used, int):
            used = torch.full((k_cache.shape[0],), used, dtype=torch.int32, device=k_cache.device)
        if k is not None or v is not None:
            together = not options["causal"] and tuple(options["window"]) == (-1, -1)
            q, used = _append(q, k_cache, v_cache, k, v, used, rotary, cu_seqlens_q, cu_seqlens_new, together)
        elif rotary[0] is not None:
            raise ValueError("rotary_cos without k turns nothing; nearest: rotary_cos=None")
        q, keys, values, options["softmax_scale"], narrow = even(q, k_cache, v_cache, options["softmax_scale"])
        options.update(seqused_k=used, return_lse=True)
        if cu_seqlens_q is None:
            out, lse = door.attention(q, keys, values, **options)
        else:
            out, lse = door.attention_varlen(q, keys, values, cu_seqlens_q, None, max_seqlen_q, 0, **options)
        return narrow(out), lse
