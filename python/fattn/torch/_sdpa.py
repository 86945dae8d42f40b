# SPDX-License-Identifier: Apache-2.0
"""The signature and the semantics of torch.nn.functional.scaled_dot_product_attention."""

import torch

from ._attention import attention


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
            bias = narrow(bias)
            bias = torch.zeros((), device=bias.device).masked_fill(~bias, float("-inf"))
        elif bias.dtype is not query.dtype and bias.dtype is not torch.float32:
            raise TypeError(f"attn_mask has dtype {bias.dtype}; nearest: torch.bool or {query.dtype}")
        if bias.dim() > 4:
            bias = bias.reshape(-1, *bias.shape[-3:]) if bias.shape[:-3] == lead else bias
        bias = narrow(bias).contiguous()
    out = attention(*(t.transpose(1, 2) for t in (query, key, value)), causal_top_left=is_causal, bias=bias,
                    dropout_p=dropout_p, softmax_scale=scale)
    out = out.transpose(1, 2)
    return out if rank == 4 else out.reshape(*lead, *out.shape[-3:]) if rank > 4 else out.reshape(out.shape[-rank:])
