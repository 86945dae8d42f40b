# SPDX-License-Identifier: Apache-2.0
"""The public functions of FlashAttention 3 (hopper/flash_attn_interface.py) by their names, positions and defaults.

    from fattn.flash_attn_3 import flash_attn_func

`out`, or (out, softmax_lse) with return_attn_probs, and of a cache with return_softmax_lse (out, softmax_lse, out_accum,
lse_accum), the last two empty. softmax_lse is fp32 (batch, heads, seqlen_q), packed (heads, total_q), -inf for rows that see no
key. num_splits, pack_gqa, sm_margin and scheduler_metadata tune the original's kernels and change nothing here."""

from . import torch as door
from ._dropin import contiguous, even, refuse, split_packed, window, with_cache
from .torch import attention, attention_varlen

torch = door.torch

__all__ = [
    "flash_attn_combine",
    "flash_attn_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_with_kvcache",
    "get_scheduler_metadata",
]


def flash_attn_func(q, k, v, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None, v_descale=None,
                    window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None,
                    deterministic=False, sm_margin=0, return_attn_probs=False):
    refuse("flash_attn_func", qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale)
    q, k, v, softmax_scale, narrow = even(*contiguous(q=q, k=k, v=v), softmax_scale)
    result = attention(q, k, v, softmax_scale=softmax_scale, causal=causal, window=window(window_size),
                       chunk=attention_chunk, softcap=softcap, deterministic=deterministic, return_lse=return_attn_probs)
    return (narrow(result[0]), result[1]) if return_attn_probs else narrow(result)


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=None,
                           seqused_k=None, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None,
                           v_descale=None, window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1,
                           pack_gqa=None, deterministic=False, sm_margin=0, return_attn_probs=False):
    refuse("flash_attn_varlen_func", qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale)
    q, k, v, softmax_scale, narrow = even(*contiguous(q=q, k=k, v=v), softmax_scale)
    result = attention_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=seqused_q,
                              seqused_k=seqused_k, softmax_scale=softmax_scale, causal=causal,
                              window=window(window_size), chunk=attention_chunk, softcap=softcap,
                              deterministic=deterministic, return_lse=return_attn_probs)
    return (narrow(result[0]), result[1]) if return_attn_probs else narrow(result)


def flash_attn_qkvpacked_func(qkv, softmax_scale=None, causal=False, q_descale=None, k_descale=None, v_descale=None,
                              window_size=(-1, -1), attention_chunk=0, softcap=0.0, deterministic=False,
                              num_heads_q=None, sm_margin=0, return_attn_probs=False):
    q, k, v = split_packed(qkv, num_heads_q if getattr(qkv, "ndim", 0) == 4 else None)
    return flash_attn_func(q, k, v, softmax_scale, causal, None, q_descale, k_descale, v_descale, window_size,
                           attention_chunk, softcap, deterministic=deterministic, sm_margin=sm_margin,
                           return_attn_probs=return_attn_probs)


def flash_attn_with_kvcache(q, k_cache, v_cache, k=None, v=None, qv=None, rotary_cos=None, rotary_sin=None,
                            cache_seqlens=None, cache_batch_idx=None, cache_leftpad=None, page_table=None,
                            cu_seqlens_q=None, cu_seqlens_k_new=None, max_seqlen_q=None, rotary_seqlens=None,
                            q_descale=None, k_descale=None, v_descale=None, softmax_scale=None, causal=False,
                            window_size=(-1, -1), attention_chunk=0, softcap=0.0, rotary_interleaved=True,
                            scheduler_metadata=None, num_splits=0, pack_gqa=None, sm_margin=0, return_softmax_lse=False):
    refuse("flash_attn_with_kvcache", qv=qv, cache_batch_idx=cache_batch_idx, cache_leftpad=cache_leftpad,
           page_table=page_table, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale)
    rotary = rotary_cos, rotary_sin, rotary_interleaved, rotary_seqlens
    out, lse = with_cache(q, k_cache, v_cache, k, v, cache_seqlens, rotary, cu_seqlens_q, cu_seqlens_k_new, max_seqlen_q,
                          softmax_scale=softmax_scale, causal=causal, window=window(window_size),
                          chunk=attention_chunk, softcap=softcap)
    if not return_softmax_lse:
        return out
    # The original also returns the parts of a split, of which there are none here.
    return out, lse, lse.new_empty(0), lse.new_empty(0)


def flash_attn_combine(out_partial, lse_partial, out=None, out_dtype=None):
    """Partial results over disjoint keys as one: out_partial (splits, batch, seqlen, heads, head_dim) with lse_partial
    (splits, batch, seqlen, heads), or both without batch, in plain PyTorch. Returns out and lse fp32."""
    if out_partial.shape[:-1] != lse_partial.shape or lse_partial.dim() not in (3, 4):
        raise ValueError(f"lse_partial has shape {tuple(lse_partial.shape)}; nearest: {tuple(out_partial.shape[:-1])}")
    lse = torch.logsumexp(lse_partial.float(), dim=0)
    share = torch.exp(lse_partial.float() - lse.masked_fill(lse == -float("inf"), 0.0))
    merged = torch.einsum("n...,n...d->...d", share, out_partial.float())
    merged = merged.to(out.dtype if out is not None else out_dtype or out_partial.dtype)
    return (merged if out is None else out.copy_(merged)), lse


def get_scheduler_metadata(batch_size, max_seqlen_q, max_seqlen_k, num_heads_q, num_heads_kv, headdim, cache_seqlens,
                           qkv_dtype=door.torch.bfloat16, headdim_v=None, cu_seqlens_q=None, cu_seqlens_k_new=None, cache_leftpad=None,
                           page_size=None, max_seqlen_k_new=0, causal=False, window_size=(-1, -1), attention_chunk=0,
                           has_softcap=False, num_splits=0, pack_gqa=None, sm_margin=0):
    """Nothing: kernels here plan their own work, and scheduler_metadata is passed over."""
    return torch.empty(0, dtype=torch.int32, device=cache_seqlens.device)
