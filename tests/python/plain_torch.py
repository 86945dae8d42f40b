# SPDX-License-Identifier: Apache-2.0
"""docs/numerics.md in PyTorch operations and float64, for its autograd: every pair of the score matrix at once."""

import torch


def visible(sq, sk, device, *, causal=False, window=(-1, -1), chunk=0, causal_top_left=False):
    i, j = torch.arange(sq, device=device)[:, None], torch.arange(sk, device=device)[None, :]
    diagonal = i + sk - sq
    keep = torch.ones(sq, sk, dtype=torch.bool, device=device)
    if causal:
        keep &= j <= diagonal
    if causal_top_left:
        keep &= j <= i
    if window[0] >= 0:
        keep &= j >= diagonal - window[0]
    if window[1] >= 0:
        keep &= j <= diagonal + window[1]
    if chunk:
        keep &= torch.div(diagonal, chunk, rounding_mode="floor") == j // chunk
    return keep


def attention(q, k, v, *, softmax_scale=None, softcap=0.0, bias=None, alibi_slopes=None, sinks=None, **mask):
    """(batch, seqlen, heads, head_dim) to o and lse (batch, heads, seqlen_q), all float64."""
    q, k, v = (t.double() for t in (q, k, v))
    group = q.shape[2] // k.shape[2]
    k, v = (t.repeat_interleave(group, dim=2) for t in (k, v))
    s = torch.einsum("bihd,bjhd->bhij", q, k) * (q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale)
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    if bias is not None:
        s = s + bias.double()
    sq, sk = q.shape[1], k.shape[1]
    if alibi_slopes is not None:
        slopes = alibi_slopes.double()
        slopes = slopes[None, :, None, None] if slopes.dim() == 1 else slopes[:, :, None, None]
        diagonal = torch.arange(sq, device=q.device)[:, None] + sk - sq
        s = s - slopes * (diagonal - torch.arange(sk, device=q.device)[None, :]).abs()
    s = s.masked_fill(~visible(sq, sk, q.device, **mask), -float("inf"))
    logits = s
    if sinks is not None:
        logits = torch.cat([s, sinks.double()[None, :, None, None].expand(*s.shape[:3], 1)], dim=-1)
    seen = (logits > -float("inf")).any(dim=-1, keepdim=True)
    lse = torch.logsumexp(logits.masked_fill(~seen, 0.0), dim=-1, keepdim=True)
    p = torch.where(seen, torch.exp(s - lse), 0.0)
    lse = torch.where(seen, lse, -float("inf"))[..., 0]
    return torch.einsum("bhij,bjhd->bihd", p, v), lse
