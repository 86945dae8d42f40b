#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Attention of NumPy arrays, forward and backward, and which kernel computes it."""

import numpy as np

import fattn

rng = np.random.default_rng(0)
q = rng.standard_normal((2, 100, 8, 64), dtype=np.float32)  # (batch, seqlen_q, heads_q, head_dim)
k = rng.standard_normal((2, 150, 2, 64), dtype=np.float32)  # (batch, seqlen_k, heads_kv, head_dim)
v = rng.standard_normal((2, 150, 2, 64), dtype=np.float32)

out, lse = fattn.attention(q, k, v, causal=True, return_lse=True)
dout = np.ones_like(out)
dq, dk, dv = fattn.attention_backward(dout, q, k, v, out, lse, causal=True)
print(f"out {out.shape}, lse {lse.shape}, dq {dq.shape}, dk {dk.shape}, dv {dv.shape}")

# The last query sees every key: softmax(q k^T / sqrt(head_dim)) v, written out.
scores = k[0, :, 0] @ q[0, -1, 0] / np.sqrt(64)
weights = np.exp(scores - scores.max())
assert np.allclose(out[0, -1, 0], weights @ v[0, :, 0] / weights.sum(), atol=1e-5)

print(fattn.explain("fwd b2 hq8 hk2 sq100 sk150 d64 fp32 causal lse"))

# What nothing computes is refused with the argument, its value and the nearest one that is supported.
try:
    fattn.attention(q, k[..., :32], v)
except ValueError as error:
    print("refused:", error)
