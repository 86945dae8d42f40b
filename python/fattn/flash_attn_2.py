# SPDX-License-Identifier: Apache-2.0
"""The public functions of FlashAttention 2 by their names, positions, defaults and return values.

    from fattn.flash_attn_2 import flash_attn_func

`out`, or (out, softmax_lse, S_dmask) with return_attn_probs. softmax_lse is fp32 (batch, heads, seqlen_q), packed
(heads, total_q), +inf for rows that see no key. S_dmask is empty without dropout, as it is there; with dropout it is
(batch, heads, max_seqlen_q, max_seqlen_k), each row's probabilities by its largest one, negative where they were dropped.
Gradients also flow from softmax_lse."""

from . import _options as o
from . import torch as door
from ._dropin import contiguous, even, refuse, split_kv, split_packed, window, with_cache
from .torch import attention, attention_varlen

torch = door.torch

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]


_COLUMNS = 64  # of S_dmask in one run


def _identity(k, begin, cu_seqlens_k):
    """Values that pick the keys `begin` to `begin + _COLUMNS` of each sequence: the output is then the weights."""
    positions = torch.arange(k.shape[-3], device=k.device)
    if cu_seqlens_k is not None:
        starts = cu_seqlens_k.long()
        positions = positions - starts[torch.searchsorted(starts, positions, right=True) - 1]
    columns = torch.arange(begin, begin + _COLUMNS, device=k.device)
    picked = (positions[:, None] == columns).to(k.dtype)[:, None]
    return picked.expand(*k.shape[:-1], _COLUMNS).contiguous()


def _dropped(call, q, k, options, lengths):
    """S_dmask. Weights and dropout come out of the kernel, _COLUMNS keys at a time; the dropout of weights that are all
    equal is seen where the weight itself would be too small to see."""
    cu_q, cu_k, longest_q, longest_k = lengths
    plain = dict(dropout_p=options["dropout_p"], generator=options["generator"])
    weights, kept = [], []
    seed = options["generator"].initial_seed()
    with torch.no_grad():
        for begin in range(0, longest_k, _COLUMNS):
            eye = _identity(k, begin, cu_k)
            weights.append(call(q, k, eye, **{**options, "dropout_p": 0.0, "return_lse": False}))
            options["generator"].manual_seed(seed)
            kept.append(call(torch.zeros_like(q), k, eye, **plain) != 0)
        weights, kept = (torch.cat(parts, dim=-1)[..., :longest_k] for parts in (weights, kept))
        scores = torch.where(kept, weights, -weights) / weights.amax(dim=-1, keepdim=True).clamp_min(1e-30)
        if cu_q is not None:
            lengths_q = cu_q.diff().tolist()
            scores = torch.nn.utils.rnn.pad_sequence(scores[: sum(lengths_q)].split(lengths_q), batch_first=True)
            scores = torch.nn.functional.pad(scores, (0, 0, 0, 0, 0, longest_q - scores.shape[1]))
        return scores.transpose(1, 2).contiguous()


def _attend(call, q, k, v, lengths, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
            return_attn_probs):
    q, k, v, softmax_scale, narrow = even(*contiguous(q=q, k=k, v=v), softmax_scale)
    dropout_p = o.real("dropout_p", dropout_p)
    options = dict(dropout_p=dropout_p, softmax_scale=softmax_scale, causal=causal, window=window(window_size),
                   softcap=max(o.real("softcap", softcap), 0.0), alibi_slopes=alibi_slopes, deterministic=deterministic,
                   return_lse=return_attn_probs)
    seen = dropout_p > 0 and return_attn_probs
    if seen:
        options["generator"] = torch.Generator(q.device).manual_seed(int(torch.randint(1 << 62, ())))
    result = call(q, k, v, **options)
    if not return_attn_probs:
        return narrow(result)
    out, lse = result
    scores = _dropped(call, q, k, options, lengths()) if seen else out.new_empty(0)
    return narrow(out), lse.masked_fill(lse == -float("inf"), float("inf")), scores


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    return _attend(attention, q, k, v, lambda: (None, None, q.shape[1], k.shape[1]), dropout_p, softmax_scale, causal,
                   window_size, softcap, alibi_slopes, deterministic, return_attn_probs)


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                           softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
                           deterministic=False, return_attn_probs=False, block_table=None):
    refuse("flash_attn_varlen_func", block_table=block_table)

    def call(q, k, v, **options):
        return attention_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options)

    return _attend(call, q, k, v, lambda: (cu_seqlens_q, cu_seqlens_k, int(max_seqlen_q), int(max_seqlen_k)), dropout_p,
                   softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs)


def flash_attn_qkvpacked_func(qkv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                              alibi_slopes=None, deterministic=False, return_attn_probs=False):
    return flash_attn_func(*split_packed(qkv), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                           deterministic, return_attn_probs)


def flash_attn_kvpacked_func(q, kv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                             alibi_slopes=None, deterministic=False, return_attn_probs=False):
    return flash_attn_func(q, *split_kv(kv), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                           deterministic, return_attn_probs)


def flash_attn_varlen_qkvpacked_func(qkv, cu_seqlens, max_seqlen, dropout_p=0.0, softmax_scale=None, causal=False,
                                     window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False,
                                     return_attn_probs=False):
    return flash_attn_varlen_func(*split_packed(qkv), cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p,
                                  softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                  return_attn_probs)


def flash_attn_varlen_kvpacked_func(q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                                    softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    return flash_attn_varlen_func(q, *split_kv(kv), cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p,
                                  softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                  return_attn_probs)


def flash_attn_with_kvcache(q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None,
                            cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None, causal=False,
                            window_size=(-1, -1), softcap=0.0, rotary_interleaved=True, alibi_slopes=None, num_splits=0,
                            return_softmax_lse=False):
    refuse("flash_attn_with_kvcache", cache_batch_idx=cache_batch_idx, cache_leftpad=cache_leftpad, block_table=block_table)
    out, lse = with_cache(q, k_cache, v_cache, k, v, cache_seqlens, (rotary_cos, rotary_sin, rotary_interleaved, None), None,
                          None, None, softmax_scale=softmax_scale, causal=causal, window=window(window_size), softcap=softcap,
                          alibi_slopes=alibi_slopes)
    return (out, lse.masked_fill(lse == -float("inf"), float("inf"))) if return_softmax_lse else out
