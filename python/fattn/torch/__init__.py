# SPDX-License-Identifier: Apache-2.0
"""Attention on PyTorch tensors, CPU and CUDA, forward and backward. This folder is the only place that imports torch.

    out = attention(q, k, v, causal=True)      # (batch, seqlen, heads, head_dim)

Two operators, torch.ops.fattn.forward and .backward, hand tensors to the library as addresses, shapes and strides: no
symbol of PyTorch is linked, so this works with any version that has torch.library."""

import torch

from ._attention import attention, attention_varlen, require_tensors
from ._sdpa import narrow, scaled_dot_product_attention

__all__ = ["attention", "attention_varlen", "scaled_dot_product_attention"]
