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


def hashes(name, count):
    """Words from a small integer hash of the name and the index."""
    state = 0
    for letter in name:
        state = (state * 31 + ord(letter)) % 2**32
    values = []
    for index in range(count):
        x = (index * 2654435761 + state * 40503 + 12345) % 2**32
        x = (x ^ (x >> 15)) * 2246822519 % 2**32
        values.append((x ^ (x >> 13)) * 3266489917 % 2**32)
    return values


def fill(name, *shape):
    """Multiples of 1/512 in [-2, 2), exact in fp32."""
    values = [((x >> 16) % 2048) / 512 - 2 for x in hashes(name, torch.Size(shape).numel())]
    return torch.tensor(values).reshape(shape)


def small(name, count, below):
    """Integers in [0, below)."""
    return [(x >> 16) % below for x in hashes(name, count)]


def philox(counter, key):
    """Philox 4x32-10, written from the paper: four words."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b % 2**32, (a >> 32) ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


DROPOUT_SEED, DROPOUT_OFFSET = 0x123456789ABCDEF0, 0x0FEDCBA987654321


def dropout_weights(b, hq, sq, sk, p):
    """docs/numerics.md, "Dropout": 0 or 1 / (1 - p), the factor rounded to fp32."""
    threshold = min(2**32 - 1, round(p * 2**32))
    factor = torch.tensor(1 / (1 - p), dtype=torch.float32).item()
    key = (DROPOUT_SEED % 2**32, (DROPOUT_SEED >> 32) ^ (DROPOUT_OFFSET >> 32))
    weights = torch.zeros(b, hq, sq, sk)
    for n in range(b * hq):
        for i in range(sq):
            for j in range(sk):
                words = philox((i // 16 * 8 + i % 8, j // 16 * 8 + j % 8, n, DROPOUT_OFFSET % 2**32), key)
                kept = words[2 * (i // 8 % 2) + j // 8 % 2] >= threshold
                weights[n // hq, n % hq, i, j] = factor if kept else 0
    return weights


def document_mask(b, sq, sk, below):
    q = torch.tensor(small("document_q", b * sq, below)).reshape(b, 1, sq, 1)
    k = torch.tensor(small("document_k", b * sk, below)).reshape(b, 1, 1, sk)
    return q == k


def prefix_mask(b, sq, sk):
    prefix = torch.tensor(small("prefix", b, sk + 1)).reshape(b, 1, 1, 1)
    return (torch.arange(sk) < prefix) | bottom_right(sq, sk)


def block_mask(b, hq, sq, sk, block_q, block_k):
    """Blocks of one table for each batch and head: 0 absent, 1 full, 2 partial. Bits of partial blocks follow each
    other in the order of the entries."""
    rows, columns = -(-sq // block_q), -(-sk // block_k)
    kinds = small("block_kind", b * hq * rows * columns, 3)
    words = hashes("block_mask", 1000)
    mask = torch.zeros(b * hq, rows * block_q, columns * block_k, dtype=torch.bool)
    first = 0
    for n, kind in enumerate(kinds):
        table, row, column = n // columns // rows, n // columns % rows, n % columns
        for bit in range(block_q * block_k):
            at = first + bit
            kept = kind == 1 or (kind == 2 and words[at // 32] >> (at % 32) & 1)
            mask[table, row * block_q + bit // block_k, column * block_k + bit % block_k] = bool(kept)
        first += block_q * block_k if kind == 2 else 0
    return mask[:, :sq, :sk].reshape(b, hq, sq, sk)


class Case:
    """One problem and its tensors in fattn's layout, [batch, seqlen, heads, head_dim]."""

    def __init__(self, line, b, hq, hk, sq, sk, d, dv=None, scale=None, softcap=0, bias=None, sinks=False, mask=None,
                 dlse=False, alibi=False, sdpa=False, is_causal=False, dropout=0, descale=None):
        self.line, self.hq, self.hk, self.softcap = line, hq, hk, softcap
        self.scale = scale if scale is not None else d**-0.5
        self.mask, self.sdpa, self.is_causal = mask, sdpa, is_causal
        self.dropout = dropout_weights(b, hq, sq, sk, dropout) if dropout else None
        q, k, v, self.dout = (fill("q", b, sq, hq, d), fill("k", b, sk, hk, d), fill("v", b, sk, hk, dv or d),
                              fill("dout", b, sq, hq, dv or d))
        if descale:  # blocks of rows that share a factor, of q and of k and v
            q, k, v, self.dout = (x.to(torch.float8_e4m3fn).double() for x in (q, k, v, self.dout))
            q = q * self.factors("q_descale", b, sq, hq, descale[0])
            k = k * self.factors("k_descale", b, sk, hk, descale[1])
            v = v * self.factors("v_descale", b, sk, hk, descale[1])
        self.q, self.k, self.v = (x.requires_grad_() for x in (q, k, v))
        self.dlse = fill("dlse", b, hq, sq) if dlse else None
        self.bias = fill("bias", *bias).requires_grad_() if bias else None
        self.sinks = fill("sinks", hq).requires_grad_() if sinks else None
        # fill() gives slopes of either sign: ALiBi's formula does not mind.
        self.slopes = fill("alibi_slopes", hq) if alibi else None

    @staticmethod
    def factors(name, b, seqlen, heads, block):
        """[batch, heads, blocks] spread over [batch, seqlen, heads, 1]."""
        by_block = fill(name, b, heads, -(-seqlen // block))
        return by_block.repeat_interleave(block, dim=2)[:, :, :seqlen].transpose(1, 2)[..., None]

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
        if self.dropout is not None:
            p = p * self.dropout
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
    yield Case("bwd b2 hq2 hk1 sq6 sk9 d4 fp64 documents", 2, 2, 1, 6, 9, 4, mask=document_mask(2, 6, 9, 3), sdpa=True)
    yield Case("bwd b2 hq2 hk2 sq7 sk7 d4 fp64 window=4,-1 documents sinks dlse dsink", 2, 2, 2, 7, 7, 4, sinks=True,
               dlse=True, mask=bottom_right(7, 7, 4, 7) & document_mask(2, 7, 7, 3))
    yield Case("bwd b3 hq2 hk1 sq5 sk8 d4 fp64 prefix", 3, 2, 1, 5, 8, 4, mask=prefix_mask(3, 5, 8), sdpa=True)
    yield Case("bwd b3 hq2 hk2 sq9 sk6 d4 dv3 fp64 window=3,-1 prefix sinks dlse dsink", 3, 2, 2, 9, 6, 4, 3, sinks=True,
               dlse=True, mask=prefix_mask(3, 9, 6) & bottom_right(9, 6, 3, 9))
    yield Case("bwd b2 hq4 hk2 sq11 sk13 d4 fp64 block_sparse=3,5,batch,heads sinks dsink", 2, 4, 2, 11, 13, 4,
               sinks=True, mask=block_mask(2, 4, 11, 13, 3, 5))
    yield Case("bwd b2 hq2 hk2 sq20 sk25 d4 fp64 dropout=0.3", 2, 2, 2, 20, 25, 4, dropout=0.3)
    yield Case("bwd b2 hq4 hk2 sq9 sk18 d4 dv6 fp64 causal documents block_sparse=4,4,batch,heads softcap=3 bias=hk "
               "sinks dropout=0.75 dlse dbias dsink", 2, 4, 2, 9, 18, 4, 6, softcap=3, bias=(1, 4, 1, 18), sinks=True,
               dropout=0.75, dlse=True,
               mask=bottom_right(9, 18) & document_mask(2, 9, 18, 3) & block_mask(2, 4, 9, 18, 4, 4))
    yield Case("bwd b2 hq4 hk2 sq7 sk9 d4 e4m3 out=fp64 causal descale=block,3,4", 2, 4, 2, 7, 9, 4,
               mask=bottom_right(7, 9), descale=(3, 4))


def main():
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    with output.open("w", encoding="ascii") as file:
        file.write(f"# Written by scripts/make_torch_golden.py with PyTorch {torch.__version__}, float64.\n")
        for case in cases():
            case.write(file)
    print(f"{output}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
