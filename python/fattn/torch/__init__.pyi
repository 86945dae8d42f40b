# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_Window = Sequence[int | None]
_Result = Any  # Tensor, or (Tensor, Tensor) with return_lse

__all__ = ["attention", "attention_varlen", "scaled_dot_product_attention"]

def attention(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, window: _Window = (-1, -1),
    softmax_scale: float | None = None, softcap: float = 0.0, chunk: int = 0, causal_top_left: bool = False,
    bias: Tensor | None = None, alibi_slopes: Tensor | None = None, sinks: Tensor | None = None,
    seqused_q: Tensor | None = None, seqused_k: Tensor | None = None, document_q: Tensor | None = None,
    document_k: Tensor | None = None, prefix: Tensor | None = None, dropout_p: float = 0.0,
    generator: torch.Generator | None = None, deterministic: bool = False, batch_invariant: bool = False,
    return_lse: bool = False, kernel: str = "",
) -> _Result: ...
def attention_varlen(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor | None, cu_seqlens_k: Tensor | None,
    max_seqlen_q: int | Tensor, max_seqlen_k: int | Tensor, *, causal: bool = False, window: _Window = (-1, -1),
    softmax_scale: float | None = None, softcap: float = 0.0, chunk: int = 0, causal_top_left: bool = False,
    bias: Tensor | None = None, alibi_slopes: Tensor | None = None, sinks: Tensor | None = None,
    seqused_q: Tensor | None = None, seqused_k: Tensor | None = None, document_q: Tensor | None = None,
    document_k: Tensor | None = None, prefix: Tensor | None = None, dropout_p: float = 0.0,
    generator: torch.Generator | None = None, deterministic: bool = False, batch_invariant: bool = False,
    return_lse: bool = False, kernel: str = "",
) -> _Result: ...
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor: ...
