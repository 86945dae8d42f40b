# SPDX-License-Identifier: Apache-2.0
"""torch.nn.functional.scaled_dot_product_attention by its signature: fattn.sdpa(q, k, v, is_causal=True), or by its name
in this module."""

import importlib
import sys
import types

from .torch import scaled_dot_product_attention

__all__ = ["scaled_dot_product_attention"]


class _Callable(types.ModuleType):
    __call__ = staticmethod(scaled_dot_product_attention)

    def __reduce__(self):  # a model that holds it may be copied and saved, as with a function
        return importlib.import_module, (__name__,)


sys.modules[__name__].__class__ = _Callable
