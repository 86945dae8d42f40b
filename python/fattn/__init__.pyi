# SPDX-License-Identifier: Apache-2.0
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

_Array = Any  # a NumPy array, or anything in host memory that speaks DLPack or the buffer protocol
_Window = tuple[int | None, int | None]
_Result = Any  # an array, or a tuple with what return_... asks for

class _Sdpa:
    """fattn.sdpa, a function that has itself by the original's name."""

    scaled_dot_product_attention: _Sdpa
    def __call__(
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> Any: ...

sdpa: _Sdpa

def attention(
    q: _Array, k: _Array, v: _Array, *, causal: bool = False, window: _Window = (-1, -1),
    softmax_scale: float | None = None, softcap: float = 0.0, chunk: int = 0, causal_top_left: bool = False,
    bias: _Array | None = None, alibi_slopes: _Array | None = None, sinks: _Array | None = None,
    seqused_q: _Array | None = None, seqused_k: _Array | None = None, document_q: _Array | None = None,
    document_k: _Array | None = None, prefix: _Array | None = None, deterministic: bool = False,
    batch_invariant: bool = False, return_lse: bool = False, return_max_logit: bool = False, threads: int = 0,
    kernel: str = "",
) -> _Result: ...
def attention_varlen(
    q: _Array, k: _Array, v: _Array, cu_seqlens_q: _Array, cu_seqlens_k: _Array, max_seqlen_q: int, max_seqlen_k: int, *,
    causal: bool = False, window: _Window = (-1, -1), softmax_scale: float | None = None, softcap: float = 0.0,
    chunk: int = 0, causal_top_left: bool = False, bias: _Array | None = None, alibi_slopes: _Array | None = None,
    sinks: _Array | None = None, seqused_q: _Array | None = None, seqused_k: _Array | None = None,
    document_q: _Array | None = None, document_k: _Array | None = None, prefix: _Array | None = None,
    deterministic: bool = False, batch_invariant: bool = False, return_lse: bool = False,
    return_max_logit: bool = False, threads: int = 0, kernel: str = "",
) -> _Result: ...
def attention_backward(
    dout: _Array, q: _Array, k: _Array, v: _Array, out: _Array, lse: _Array, *, dlse: _Array | None = None,
    cu_seqlens_q: _Array | None = None, cu_seqlens_k: _Array | None = None, max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None, causal: bool = False, window: _Window = (-1, -1),
    softmax_scale: float | None = None, softcap: float = 0.0, chunk: int = 0, causal_top_left: bool = False,
    bias: _Array | None = None, alibi_slopes: _Array | None = None, sinks: _Array | None = None,
    seqused_q: _Array | None = None, seqused_k: _Array | None = None, document_q: _Array | None = None,
    document_k: _Array | None = None, prefix: _Array | None = None, deterministic: bool = False,
    batch_invariant: bool = False, return_dbias: bool = False, return_dsink: bool = False, threads: int = 0,
    kernel: str = "",
) -> tuple[NDArray[Any], ...]: ...
def attention_map(
    q: _Array, k: _Array, *, lse: _Array | None = None, causal: bool = False, window: _Window = (-1, -1),
    softmax_scale: float | None = None, softcap: float = 0.0,
) -> NDArray[np.float64]: ...
def explain(problem: str, device: str = "cpu", kernel: str = "") -> str: ...
def kernels() -> list[tuple[str, str, str, bool, bool]]: ...
def devices() -> list[tuple[str, int, str]]: ...
