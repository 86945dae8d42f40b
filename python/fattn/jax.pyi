# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

from jax import Array

_Window = Sequence[int | None]
_Result = Any  # Array, or (Array, Array) with return_lse

__all__ = ["attention", "attention_varlen"]

def attention(
    q: Array, k: Array, v: Array, *, causal: bool = False, window: _Window = (-1, -1),
    softmax_scale: float | None = None, softcap: float = 0.0, chunk: int = 0, causal_top_left: bool = False,
    bias: Array | None = None, alibi_slopes: Array | None = None, sinks: Array | None = None,
    seqused_q: Array | None = None, seqused_k: Array | None = None, deterministic: bool = False,
    batch_invariant: bool = False, return_lse: bool = False, kernel: str = "",
) -> _Result: ...
def attention_varlen(
    q: Array, k: Array, v: Array, cu_seqlens_q: Array, cu_seqlens_k: Array, max_seqlen_q: int, max_seqlen_k: int, *,
    causal: bool = False, window: _Window = (-1, -1), softmax_scale: float | None = None, softcap: float = 0.0,
    chunk: int = 0, causal_top_left: bool = False, bias: Array | None = None, alibi_slopes: Array | None = None,
    sinks: Array | None = None, seqused_q: Array | None = None, seqused_k: Array | None = None,
    deterministic: bool = False, batch_invariant: bool = False, return_lse: bool = False, kernel: str = "",
) -> _Result: ...
