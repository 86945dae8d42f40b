# SPDX-License-Identifier: Apache-2.0
"""The signature and the semantics of torch.nn.functional.scaled_dot_product_attention."""

import math

import torch

from ._attention import attention, require_tensors


def narrow(mask):
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
    require_tensors(query=query, key=key, value=value, **({} if attn_mask is None else {"attn_mask": attn_mask}))
    rank = query.dim()
    if rank < 2 or key.dim() != rank or value.dim() != rank:
        raise ValueError(f"query, key and value have {rank}, {key.dim()} and {value.dim()} dimensions; nearest: 4 each")
    lead, shape = query.shape[:-3], (*query.shape[:-1], value.shape[-1])
    # As PyTorch does: a tensor whose last dimension is strided is laid out anew.
    query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in (query, key, value))
    if rank != 4:
        query, key, value = (_four(t) for t in (query, key, value))
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError(f"query has {query.shape[1]} heads and key has {key.shape[1]}; nearest: enable_gqa=True")
    out = attention(*(t.transpose(1, 2) for t in (query, key, value)), causal_top_left=is_causal,
                    bias=None if attn_mask is None else _bias(attn_mask, query.dtype, lead), dropout_p=dropout_p,
                    softmax_scale=scale).transpose(1, 2)
    return out if rank == 4 else out.reshape(shape)


def _four(tensor):
    """(..., heads, seqlen, head_dim) as (batch, heads, seqlen, head_dim)."""
    heads = tensor.shape[-3:] if tensor.dim() > 2 else (1, *tensor.shape)
    return tensor.reshape(math.prod(tensor.shape[:-3]), *heads)


def _bias(mask, dtype, lead):
    """What attention() adds for a mask that broadcasts to (*lead, heads, seqlen_q, seqlen_k)."""
    if mask.dtype is torch.bool:
        mask = narrow(mask)
        mask = torch.zeros((), device=mask.device).masked_fill(~mask, float("-inf"))
    elif mask.dtype is not dtype and mask.dtype is not torch.float32:
        raise TypeError(f"attn_mask has dtype {mask.dtype}; nearest: torch.bool or {dtype}")
    if len(lead) > 1 and mask.dim() > 3:
        mask = mask.expand(*lead, *mask.shape[-3:]).reshape(math.prod(lead), *mask.shape[-3:])
    return narrow(mask).contiguous()
