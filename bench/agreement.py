# SPDX-License-Identifier: Apache-2.0
"""Random data for a problem, its answer in a wider type, and how far an implementation is from it."""

import dataclasses
import math

import torch

import problem_text

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Root of mean squares of the error relative to the answer's, and the largest relative error of one row of one head.
# Several times what rounding alone gives, far below what one wrong tile gives.
LIMITS = {"bf16": (0.02, 0.15), "fp16": (0.005, 0.05), "fp32": (1e-4, 2e-3)}
LSE_LIMIT = 0.02


@dataclasses.dataclass
class Data:
    problem: problem_text.Problem
    device: str
    q: torch.Tensor  # [batch, seqlen_q, heads_q, head_dim], packed [total_q, heads_q, head_dim]
    k: torch.Tensor  # [batch, seqlen_k, heads_kv, head_dim]
    v: torch.Tensor  # [batch, seqlen_k, heads_kv, head_dim_v]
    dout: torch.Tensor  # [batch, seqlen_q, heads_q, head_dim_v]
    cu_seqlens_q: torch.Tensor | None  # [batch + 1]
    cu_seqlens_k: torch.Tensor | None

    @property
    def scale(self):
        return 1 / math.sqrt(self.problem.head_dim)

    def sequences(self):
        """For each sequence of the batch a function that takes its rows of queries, and one for keys."""
        for b in range(self.problem.batch):
            yield _rows(b, self.cu_seqlens_q), _rows(b, self.cu_seqlens_k)


def _rows(b, cu_seqlens):
    if cu_seqlens is None:
        return lambda tensor: tensor[b]
    begin, end = int(cu_seqlens[b]), int(cu_seqlens[b + 1])
    return lambda tensor: tensor[begin:end]


def _cumulative(lengths, device):
    return torch.tensor([sum(lengths[:i]) for i in range(len(lengths) + 1)], dtype=torch.int32, device=device)


def make_data(problem, device, seed=0):
    """Standard normal values, the same for every implementation."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(keys, heads, dim):
        total = problem.total_k if keys else problem.total_q
        rows = [problem.batch, problem.seqlen_k if keys else problem.seqlen_q] if total is None else [total]
        return torch.randn(*rows, heads, dim, generator=generator, device=device).to(TORCH_DTYPES[problem.dtype])

    pairs = problem_text.sequences(problem)
    return Data(
        problem,
        device,
        normal(False, problem.heads_q, problem.head_dim),
        normal(True, problem.heads_kv, problem.head_dim),
        normal(True, problem.heads_kv, problem.head_dim_v),
        normal(False, problem.heads_q, problem.head_dim_v),
        None if problem.total_q is None else _cumulative([q for q, _ in pairs], device),
        None if problem.total_k is None else _cumulative([k for _, k in pairs], device),
    )


def dropped(problem, seqlen_q, seqlen_k, device):
    """[seqlen_q, seqlen_k] bool: pairs that the mask drops; None when it drops none."""
    left, right = problem_text.band(problem, seqlen_q, seqlen_k)
    if left == problem_text.UNBOUNDED and right == problem_text.UNBOUNDED:
        return None
    keys = torch.arange(seqlen_k, device=device, dtype=torch.int32)[None, :]
    diagonals = torch.arange(seqlen_k - seqlen_q, seqlen_k, device=device, dtype=torch.int32)[:, None]
    distance = keys - diagonals
    return (distance < -left) | (distance > right)


def answer(data, chunk_elements=1 << 26):
    """The problem's outputs, written as in docs/numerics.md, in fp32 (fp64 for fp32 inputs), a few heads at a time."""
    problem = data.problem
    wide = torch.float64 if problem.dtype == "fp32" else torch.float32
    group = problem.heads_q // problem.heads_kv
    backward = problem.direction == "bwd"
    o = torch.zeros(data.dout.shape, dtype=wide, device=data.device)
    lse_rows = data.dout.shape[:-1]  # [..., seqlen_q, heads_q]
    lse = torch.full(lse_rows, -math.inf, dtype=wide, device=data.device)
    dq, dk, dv = (torch.zeros(x.shape, dtype=wide, device=data.device) for x in (data.q, data.k, data.v))
    for rows_q, rows_k in data.sequences():
        seqlen_q, seqlen_k = rows_q(data.q).shape[0], rows_k(data.k).shape[0]
        mask = dropped(problem, seqlen_q, seqlen_k, data.device)
        chunk = max(1, chunk_elements // max(1, seqlen_q * seqlen_k * group))
        for first in range(0, problem.heads_kv, chunk):
            keys = slice(first, min(first + chunk, problem.heads_kv))
            queries = slice(keys.start * group, keys.stop * group)

            def take(tensor, rows, heads):  # [heads, rows, dim]
                return rows(tensor)[:, heads].to(wide).transpose(0, 1)

            def spread(tensor):  # key heads to the query heads that read them
                return tensor.repeat_interleave(group, 0)

            def gather(tensor):  # and the sum back
                return tensor.unflatten(0, (-1, group)).sum(1)

            q, k, v = take(data.q, rows_q, queries), take(data.k, rows_k, keys), take(data.v, rows_k, keys)
            s = q @ spread(k).transpose(1, 2) * data.scale
            if mask is not None:
                s.masked_fill_(mask, -math.inf)
            row_lse = torch.logsumexp(s, -1)
            p = s.sub_(torch.where(row_lse.isinf(), 0.0, row_lse)[..., None]).exp_()
            out = p @ spread(v)
            rows_q(o)[:, queries] = out.transpose(0, 1)
            rows_q(lse)[:, queries] = row_lse.transpose(0, 1)
            if backward:
                dout = take(data.dout, rows_q, queries)
                ds = (
                    (dout @ spread(v).transpose(1, 2)).sub_((dout * out).sum(-1, keepdim=True)).mul_(p).mul_(data.scale)
                )
                rows_q(dq)[:, queries] = (ds @ spread(k)).transpose(0, 1)
                rows_k(dk)[:, keys] = gather(ds.transpose(1, 2) @ q).transpose(0, 1)
                rows_k(dv)[:, keys] = gather(p.transpose(1, 2) @ dout).transpose(0, 1)
    forward = {"o": o, "lse": lse.transpose(-1, -2)}  # [..., heads_q, seqlen_q]
    return forward | ({"dq": dq, "dk": dk, "dv": dv} if backward else {})


def errors(got, want):
    """(relative RMS error, largest relative error of a row); infinite when a value is not finite."""
    if not torch.isfinite(got).all():
        return math.inf, math.inf
    difference, want = (got.to(want.dtype) - want), want
    rms = torch.linalg.vector_norm(want) / math.sqrt(max(1, want[..., 0].numel()))  # typical row
    row = torch.linalg.vector_norm(difference, dim=-1) / (torch.linalg.vector_norm(want, dim=-1) + rms)
    total = torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(want)
    return total.item(), row.max().item()


def complaint(outputs, want, dtype):
    """Why these outputs are wrong, in a sentence; empty when they agree."""
    for name, got in outputs.items():
        if got.shape != want[name].shape:
            return f"{name} has shape {list(got.shape)}, not {list(want[name].shape)}"
        if name == "lse":
            empty = want[name].isinf()
            if not torch.equal(got.isinf(), empty):
                return "lse is infinite where a row has keys, or finite where it has none"
            worst = (got - want[name])[~empty].abs().max().item() if not empty.all() else 0.0
            if not worst <= LSE_LIMIT:
                return f"lse is off by {worst:.3g}, allowed {LSE_LIMIT}"
            continue
        total, row = errors(got, want[name])
        if not (total <= LIMITS[dtype][0] and row <= LIMITS[dtype][1]):
            return (
                f"{name} is off by {total:.3g} (worst row {row:.3g}) of the fp32 answer, "
                f"allowed {LIMITS[dtype][0]} ({LIMITS[dtype][1]})"
            )
    return ""
