# SPDX-License-Identifier: Apache-2.0
"""Exact, IO-aware attention. Here: host arrays. fattn.torch, fattn.jax and fattn.hf are the doors of the frameworks;
fattn.flash_attn_2, fattn.flash_attn_3 and fattn.sdpa have the names and signatures of others."""

import importlib as _importlib

from ._core import version as __version__
from ._numpy import attention, attention_backward, attention_map, attention_varlen, devices, explain, kernels

__all__ = ["attention", "attention_backward", "attention_map", "attention_varlen", "devices", "explain", "kernels"]

_DOORS = ("flash_attn_2", "flash_attn_3", "hf", "jax", "sdpa", "torch")


def __getattr__(name):
    """A door is imported when it is first asked for, with the framework it needs."""
    if name in _DOORS:
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_DOORS])
