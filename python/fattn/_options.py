# SPDX-License-Identifier: Apache-2.0
"""What the doors share: how a call's options become those of the compiled part."""

import operator

from . import _core

# Codes of fattn::DType.
FP64, FP32, BF16, FP16, E4M3 = range(5)

# Which optional arrays and outputs take part: the bits of _core.plan's `flags`.
SEQUSED_Q, SEQUSED_K, SINKS, DOCUMENTS, PREFIX, LSE, MAX_LOGIT, DLSE, DBIAS, DSINK, ALIBI_HEAD, ALIBI_BATCH = (
    1 << bit for bit in range(12)
)


# Of causal, causal_top_left, left, right, chunk, softmax_scale, softcap, dropout, deterministic, batch_invariant, kernel.
# Values of a wrong type are refused by name.
options = _core.Options


def real(name, value):
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {value!r} must be a number") from None


def integer(name, value):
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} = {value!r} must be an integer") from None


def two(window):
    """A pair (left, right); None on a side is unbounded, as -1 is."""
    try:
        left, right = window
    except (TypeError, ValueError):
        raise TypeError(f"window = {window!r} must be a pair (left, right); nearest: (-1, -1)") from None
    return -1 if left is None else left, -1 if right is None else right
