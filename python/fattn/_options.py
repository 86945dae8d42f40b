# SPDX-License-Identifier: Apache-2.0
"""What the doors share: how a call's options become those of the compiled part."""

import functools
import operator

from . import _core

# Codes of fattn::DType.
FP64, FP32, BF16, FP16, E4M3 = range(5)

# Which optional arrays and outputs take part: the bits of _core.plan's `flags`.
SEQUSED_Q, SEQUSED_K, SINKS, DOCUMENTS, PREFIX, LSE, MAX_LOGIT, DLSE, DBIAS, DSINK, ALIBI_HEAD, ALIBI_BATCH = (
    1 << bit for bit in range(12)
)


def options(causal, causal_top_left, left, right, chunk, softmax_scale, softcap, dropout, deterministic, batch_invariant,
            kernel):
    """The same object for the same values. Values of a wrong type are refused by name."""
    # Equal keys must mean equal values for ever, which a 0-dim array does not promise.
    if softmax_scale is not None and type(softmax_scale) is not float:
        softmax_scale = real("softmax_scale", softmax_scale)
    if type(softcap) is not float:
        softcap = real("softcap", softcap)
    return _options(causal, causal_top_left, left, right, chunk, softmax_scale, softcap, dropout, deterministic,
                    batch_invariant, kernel)


def real(name, value):
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {value!r} must be a number") from None


def _flag(name, value):
    if value is True or value is False:
        return value
    try:
        if value == 0 or value == 1:
            return bool(value)
    except (TypeError, ValueError, RuntimeError):  # an array of many
        pass
    raise TypeError(f"{name} = {value!r} must be True or False")


@functools.lru_cache(maxsize=1024)
def _options(causal, causal_top_left, left, right, chunk, softmax_scale, softcap, dropout, deterministic, batch_invariant,
             kernel):
    integers = {"window[0]": left, "window[1]": right, "chunk": chunk}
    for name, value in integers.items():
        try:
            integers[name] = operator.index(value)
        except TypeError:
            raise TypeError(f"{name} = {value!r} must be an integer") from None
    return _core.Options(
        causal=_flag("causal", causal),
        causal_top_left=_flag("causal_top_left", causal_top_left),
        window_left=integers["window[0]"],
        window_right=integers["window[1]"],
        chunk=integers["chunk"],
        softmax_scale=softmax_scale,
        softcap=softcap,
        dropout=real("dropout_p", dropout),
        deterministic=_flag("deterministic", deterministic),
        batch_invariant=_flag("batch_invariant", batch_invariant),
        kernel=kernel,
    )


def two(window):
    """A pair (left, right); None on a side is unbounded, as -1 is."""
    try:
        left, right = window
    except (TypeError, ValueError):
        raise TypeError(f"window = {window!r} must be a pair (left, right); nearest: (-1, -1)") from None
    return -1 if left is None else left, -1 if right is None else right
