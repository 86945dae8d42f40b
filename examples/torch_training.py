#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A transformer's attention layer in PyTorch with fattn inside, trained for a few steps; CPU, or CUDA where it is."""

import torch

import fattn.torch


class Attention(torch.nn.Module):
    def __init__(self, dim, heads, heads_kv):
        super().__init__()
        self.head_dim = dim // heads
        self.q = torch.nn.Linear(dim, dim, bias=False)
        self.kv = torch.nn.Linear(dim, 2 * heads_kv * self.head_dim, bias=False)
        self.o = torch.nn.Linear(dim, dim, bias=False)

    def forward(self, x):  # (batch, seqlen, dim)
        q = self.q(x).unflatten(-1, (-1, self.head_dim))  # (batch, seqlen, heads, head_dim)
        k, v = self.kv(x).unflatten(-1, (-1, self.head_dim)).chunk(2, dim=-2)  # (batch, seqlen, heads_kv, head_dim)
        return self.o(fattn.torch.attention(q, k, v, causal=True).flatten(-2))


torch.manual_seed(0)
cuda = torch.cuda.is_available()
layer = Attention(dim=256, heads=4, heads_kv=2).to("cuda" if cuda else "cpu", torch.bfloat16 if cuda else torch.float32)
x = torch.randn(2, 64, 256).to(layer.o.weight)
target = torch.roll(x, 1, dims=1)  # what stood one position before
optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)
losses = []
for step in range(20):
    loss = torch.nn.functional.mse_loss(layer(x), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
assert losses[-1] < 0.9 * losses[0]
