#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/reference/golden/torch_fp64.txt: outputs and gradients of PyTorch in float64, to hold the oracle against
a computation that is not ours.

    scripts/make_torch_golden.py [OUTPUT]      needs PyTorch, a CPU build is enough

Inputs are not stored: fill() below and fill() in tests/reference/golden.cpp give the same numbers. What
torch.nn.functional.scaled_dot_product_attention can say goes through it, the rest through plain tensor operations and
autograd."""

import pathlib
import sys

import torch

torch.set_default_dtype(torch.float64)
OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "tests/reference/golden/torch_fp64.txt"


def fill(name, *shape):
    """Multiples of 1/512 in [-2, 2), exact in fp32, from a small integer hash of the name and the index."""
    state = 0
    for letter in name:
        state = (state * 31 + ord(letter)) % 2**32
    values = []
    for index in range(torch.Size(shape).numel()):
        x = (index * 2654435761 + state * 40503 + 12345) % 2**32
        x = (x ^ (x >> 15)) * 2246822519 % 2**32
        x = (x ^ (x >> 13)) * 3266489917 % 2**32
        values.append(((x >> 16) % 2048) / 512 - 2)
    return torch.tensor(values).reshape(shape)


class Case:
    """One problem and its tensors in fattn's layout, [batch, seqlen, heads, head_dim]."""

    def __init__(self, line, b, hq, hk, sq, sk, d, dv=None, scale=None, softcap=0, bias=None, sinks=False, mask=None,
                 dlse=False, alibi=False, sdpa=False, is_causal=False):
        self.line, self.hq, self.hk, self.softcap = line, hq, hk, softcap
        self.scale = scale if scale is not None else d**-0.5
        self.mask, self.sdpa, self.is_causal = mask, sdpa, is_causal
        self.q = fill("q", b, sq, hq, d).requires_grad_()
        self.k = fill("k", b, sk, hk, d).requires_grad_()
        self.v = fill("v", b, sk, hk, dv or d).requires_grad_()
        self.dout = fill("dout", b, sq, hq, dv or d)
        self.dlse = fill("dlse", b, hq, sq) if dlse else None
        self.bias = fill("bias", *bias).requires_grad_() if bias else None
        self.sinks = fill("sinks", hq).requires_grad_() if sinks else None
        # fill() gives slopes of either sign: ALiBi's formula does not mind.
        self.slopes = fill("alibi_slopes", hq) if alibi else None

    def forward(self):
        q, k, v = (x.transpose(1, 2) for x in (self.q, self.k, self.v))
        if self.sdpa:  # PyTorch's own attention
            kept = self.mask if self.bias is None else self.bias
            o = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=kept, is_causal=self.is_causal, scale=self.scale, enable_gqa=self.hq != self.hk)
            return o.transpose(1, 2), None
        k, v = (x.repeat_interleave(self.hq // self.hk, dim=1) for x in (k, v))
        s = self.scale * q @ k.transpose(2, 3)
        if self.softcap:
            s = self.softcap * torch.tanh(s / self.softcap)
        if self.bias is not None:
            s = s + self.bias
        sq, sk = s.shape[-2:]
        if self.slopes is not None:
            distance = (torch.arange(sq)[:, None] + sk - sq - torch.arange(sk)[None, :]).abs()
            s = s - self.slopes[None, :, None, None] * distance
        if self.mask is not None:
            s = s.masked_fill(~self.mask, float("-inf"))
        if self.sinks is not None:  # one more column that has no value
            s = torch.cat([s, self.sinks[None, :, None, None].expand(*s.shape[:-1], 1)], dim=-1)
        p = torch.softmax(s, dim=-1)[..., :sk]
        return (p @ v).transpose(1, 2), torch.logsumexp(s, dim=-1)

    def write(self, file):
        o, lse = self.forward()
        loss = (o * self.dout).sum()
        if self.dlse is not None:
            loss = loss + (lse * self.dlse).sum()
        loss.backward()
        file.write(f"case {self.line}\n")
        outputs = {"o": o, "lse": lse, "dq": self.q.grad, "dk": self.k.grad, "dv": self.v.grad,
                   "dbias": self.bias.grad if self.bias is not None else None,
                   "dsink": self.sinks.grad if self.sinks is not None else None}
        for name, tensor in outputs.items():
            if tensor is None:
                continue
            values = tensor.detach().contiguous().flatten().tolist()
            assert all(x == x and abs(x) < 1e30 for x in values), self.line
            file.write(f"{name} {len(values)}\n" + "\n".join(repr(x) for x in values) + "\n")


def bottom_right(sq, sk, left=None, right=0):
    diagonal = torch.arange(sq)[:, None] + sk - sq
    key = torch.arange(sk)[None, :]
    kept = key <= diagonal + right
    return kept if left is None else kept & (key >= diagonal - left)


def cases():
    yield Case("bwd b2 hq2 hk2 sq5 sk7 d8 fp64", 2, 2, 2, 5, 7, 8, sdpa=True)
    yield Case("bwd b1 hq4 hk2 sq6 sk6 d7 dv5 fp64 scale=0.5", 1, 4, 2, 6, 6, 7, 5, scale=0.5, sdpa=True)
    yield Case("bwd b1 hq2 hk2 sq7 sk7 d4 fp64 causal_top_left", 1, 2, 2, 7, 7, 4, sdpa=True, is_causal=True)
    yield Case("bwd b1 hq2 hk1 sq5 sk9 d6 fp64 causal", 1, 2, 1, 5, 9, 6, sdpa=True, mask=bottom_right(5, 9))
    yield Case("bwd b1 hq2 hk2 sq9 sk5 d4 fp64 causal_top_left", 1, 2, 2, 9, 5, 4,
               mask=torch.arange(5)[None, :] <= torch.arange(9)[:, None])
    yield Case("bwd b2 hq2 hk2 sq4 sk5 d8 fp64 bias=bhqk dbias", 2, 2, 2, 4, 5, 8, bias=(2, 2, 4, 5), sdpa=True)
    yield Case("bwd b2 hq4 hk2 sq4 sk5 d6 fp64 bias=hk dbias dlse", 2, 4, 2, 4, 5, 6, bias=(1, 4, 1, 5), dlse=True)
    yield Case("bwd b2 hq2 hk1 sq4 sk6 d5 fp64 window=2,1 softcap=1.5", 2, 2, 1, 4, 6, 5, softcap=1.5,
               mask=bottom_right(4, 6, 2, 1))
    yield Case("bwd b2 hq3 hk3 sq4 sk4 d6 fp64 causal sinks dsink dlse", 2, 3, 3, 4, 4, 6, sinks=True, dlse=True,
               mask=bottom_right(4, 4))
    yield Case("bwd b2 hq4 hk2 sq5 sk6 d6 dv3 fp64 causal scale=0.7 softcap=2 bias=bq alibi sinks dlse dbias dsink",
               2, 4, 2, 5, 6, 6, 3, scale=0.7, softcap=2, bias=(2, 1, 5, 1), alibi=True, sinks=True, dlse=True,
               mask=bottom_right(5, 6))


def main():
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    with output.open("w", encoding="ascii") as file:
        file.write(f"# Written by scripts/make_torch_golden.py with PyTorch {torch.__version__}, float64.\n")
        for case in cases():
            case.write(file)
    print(f"{output}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
