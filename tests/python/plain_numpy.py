# SPDX-License-Identifier: Apache-2.0
"""docs/numerics.md in NumPy and float64: one sequence, every pair of the score matrix at once."""

import numpy as np


def scores(q, k, *, scale=None, softcap=0.0, bias=None, slopes=None):
    """(heads, seqlen_q, seqlen_k), and the factor of the softcap in the gradient."""
    group = q.shape[1] // k.shape[1]
    k = np.repeat(k, group, axis=1)
    s = np.einsum("ihd,jhd->hij", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    factor = np.ones_like(s)
    if softcap:
        s = softcap * np.tanh(s / softcap)
        factor = 1 - (s / softcap) ** 2
    if bias is not None:
        s = s + bias
    if slopes is not None:
        diagonal = np.arange(q.shape[0])[:, None] + k.shape[0] - q.shape[0]
        s = s - slopes[:, None, None] * np.abs(diagonal - np.arange(k.shape[0])[None, :])
    return s, factor


def visible(sq, sk, *, causal=False, window=(-1, -1), chunk=0, causal_top_left=False):
    i, j = np.arange(sq)[:, None], np.arange(sk)[None, :]
    diagonal = i + sk - sq
    keep = np.ones((sq, sk), bool)
    if causal:
        keep &= j <= diagonal
    if causal_top_left:
        keep &= j <= i
    if window[0] >= 0:
        keep &= j >= diagonal - window[0]
    if window[1] >= 0:
        keep &= j <= diagonal + window[1]
    if chunk:
        keep &= np.floor_divide(diagonal, chunk) == j // chunk
    return keep


def attention(q, k, v, dout=None, dlse=None, *, scale=None, softcap=0.0, bias=None, slopes=None, sinks=None, **mask):
    """q (seqlen_q, heads, head_dim) of one sequence. Returns o, lse (heads, seqlen_q), and with dout the gradients."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    s, factor = scores(q, k, scale=scale, softcap=softcap, bias=bias, slopes=slopes)
    s = np.where(visible(q.shape[0], k.shape[0], **mask), s, -np.inf)
    heads, group = q.shape[1], q.shape[1] // k.shape[1]
    logits = [s] if sinks is None else [s, np.broadcast_to(np.reshape(sinks, (heads, 1, 1)), (*s.shape[:2], 1))]
    joined = np.concatenate(logits, axis=2)
    with np.errstate(divide="ignore"):
        peak = np.max(joined, axis=2, initial=-np.inf, keepdims=True)
        peak = np.where(np.isfinite(peak), peak, 0)
        lse = (peak + np.log(np.exp(joined - peak).sum(axis=2, keepdims=True)))[..., 0]
    p = np.where(np.isfinite(s), np.exp(s - np.where(np.isfinite(lse), lse, 0)[..., None]), 0)
    many_v = np.repeat(v, group, axis=1)
    out = np.einsum("hij,jhd->ihd", p, many_v)
    if dout is None:
        return out, lse
    dout = np.asarray(dout, np.float64)
    dp = np.einsum("ihd,jhd->hij", dout, many_v)
    delta = np.einsum("ihd,ihd->hi", dout, out) - (0 if dlse is None else dlse)
    ds = p * (dp - delta[..., None])
    inner = ds * factor * (q.shape[-1] ** -0.5 if scale is None else scale)
    dq = np.einsum("hij,jhd->ihd", inner, np.repeat(k, group, axis=1))
    shared = lambda x: x.reshape(x.shape[0], k.shape[1], group, x.shape[2]).sum(axis=2)
    dk = shared(np.einsum("hij,ihd->jhd", inner, q))
    dv = shared(np.einsum("hij,ihd->jhd", p, dout))
    dsink = None if sinks is None else -(np.exp(np.asarray(sinks)[:, None] - lse) * delta).sum(axis=1)
    return out, lse, dq, dk, dv, ds, dsink
