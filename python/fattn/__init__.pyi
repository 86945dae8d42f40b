# SPDX-License-Identifier: Apache-2.0
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

Array = Any  # a NumPy array, or anything in host memory that speaks DLPack or the buffer protocol
Window = tuple[int | None, int | None]
Result = NDArray[Any] | tuple[NDArray[Any], ...]

def attention(
    q: Array, k: Array, v: Array, *, causal: bool = False, window: Window = (-1, -1),
    softmax_scale: float | None = None, softcap: float = 0.0, chunk: int = 0, causal_top_left: bool = False,
    bias: Array | None = None, alibi_slopes: Array | None = None, sinks: Array | None = None,
    seqused_q: Array | None = None, seqused_k: Array | None = None, document_q: Array | None = None,
    document_k: Array | None = None, prefix: Array | None = None, deterministic: bool = False,
    batch_invariant: bool = False, return_lse: bool = False, return_max_logit: bool = False, threads: int = 0,
    kernel: str = "",
) -> Result: ...
def attention_varlen(
    q: Array, k: Array, v: Array, cu_seqlens_q: Array, cu_seqlens_k: Array, max_seqlen_q: int, max_seqlen_k: int, *,
    causal: bool = False, window: Window = (-1, -1), softmax_scale: float | None = None, softcap: float = 0.0,
    chunk: int = 0, causal_top_left: bool = False, bias: Array | None = None, alibi_slopes: Array | None = None,
    sinks: Array | None = None, seqused_q: Array | None = None, seqused_k: Array | None = None,
    document_q: Array | None = None, document_k: Array | None = None, prefix: Array | None = None,
    deterministic: bool = False, batch_invariant: bool = False, return_lse: bool = False,
    return_max_logit: bool = False, threads: int = 0, kernel: str = "",
) -> Result: ...
def attention_backward(
    dout: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, *, dlse: Array | None = None,
    cu_seqlens_q: Array | None = None, cu_seqlens_k: Array | None = None, max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None, causal: bool = False, window: Window = (-1, -1),
    softmax_scale: float | None = None, softcap: float = 0.0, chunk: int = 0, causal_top_left: bool = False,
    bias: Array | None = None, alibi_slopes: Array | None = None, sinks: Array | None = None,
    seqused_q: Array | None = None, seqused_k: Array | None = None, document_q: Array | None = None,
    document_k: Array | None = None, prefix: Array | None = None, deterministic: bool = False,
    batch_invariant: bool = False, return_dbias: bool = False, return_dsink: bool = False, threads: int = 0,
    kernel: str = "",
) -> tuple[NDArray[Any], ...]: ...
def attention_map(
    q: Array, k: Array, *, lse: Array | None = None, causal: bool = False, window: Window = (-1, -1),
    softmax_scale: float | None = None, softcap: float = 0.0,
) -> NDArray[np.float64]: ...
def explain(problem: str, device: str = "cpu", kernel: str = "") -> str: ...
def kernels() -> list[tuple[str, str, str, bool, bool]]: ...
def devices() -> list[tuple[str, int, str]]: ...
